"""The command line: `tiny-transformer train`, `sample`, `gallery`, `export` and the others."""

import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn

from tiny_transformer.capstone import doors
from tiny_transformer.capstone.explore import open_page, write_explorer
from tiny_transformer.capstone.guide import Start, help_of_training, to_try
from tiny_transformer.capstone.interchange import export_hf, export_onnx
from tiny_transformer.capstone.mine import eager_unless_compiled, rehearse, your_parts
from tiny_transformer.capstone.reference import gallery, load_run, train
from tiny_transformer.capstone.session import resume_command
from tiny_transformer.capstone.terminal import Voice, standard_streams, visible
from tiny_transformer.capstone.verify import verify
from tiny_transformer.data.corpus import CorpusError, load_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import PRESETS, RunConfig, read_config, read_run_config
from tiny_transformer.engineering.memory import check_fits, check_training_fits
from tiny_transformer.engineering.processes import Processes, joined
from tiny_transformer.engineering.reference import replace_file
from tiny_transformer.engineering.speed import packed, pays_to_pack
from tiny_transformer.sampling.reference import generate
from tiny_transformer.sampling.speculative import Choose, NGramDraft, generate_ahead
from tiny_transformer.setup.device import choose_device
from tiny_transformer.setup.grading.commands import Check, Hint, Learn, Progress, Reset
from tiny_transformer.setup.limits import LARGEST_SEED, check_number
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import TrainConfig

RUNS = Path("runs")
ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = Path(__file__).with_name("pretrained")
DRAFT_FROM = 2_000_000  # characters of the corpus, of which each takes 90 bytes to be counted
LINE = "But, soft! what light through yonder window breaks?"
PROMPTS = ("ROMEO:", "KING RICHARD III:\n", "To be, or not to be")


def main() -> None:
    which = sys.argv[1:2]
    try:
        with (
            standard_streams(patient=which == ["train"], exact=which == ["sample"]),
            joined() as processes,
        ):
            if processes.first:
                command = parse(sys.argv[1:])
                processes.tell(command)
            else:
                command = processes.told()
            if isinstance(command, Train):
                status = command(processes)
            else:
                status = command() if processes.first else 0
        sys.exit(status)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"tiny-transformer: {visible(sentence(error))}")


def default_preset() -> str:
    return "gpu" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Source:
    """Where the settings of a run come from. Options on the command line change them."""

    preset: Literal[tuple(PRESETS)] = field(default_factory=default_preset)
    config: Path | None = None
    """A TOML file with settings, over those of the preset."""
    out: Path | None = None
    """The run folder. By default runs/PRESET-TIME, or with --resume the newest run."""
    resume: bool = False
    """Go on with the run in the folder, by its own settings."""

    def folder(self) -> Path:
        if self.out is None and self.resume:
            return newest_run()
        return self.out or RUNS / f"{self.preset}-{time.strftime('%Y%m%d-%H%M%S')}"

    def base(self) -> RunConfig:
        base = PRESETS[self.preset]
        if self.resume and (self.folder() / "config.toml").exists():
            base = read_run_config(self.folder())
        if self.config and not self.config.is_file():
            raise ValueError(f"--config is {self.config}; it must be a file of settings in TOML")
        return read_config(self.config, base) if self.config else base


@dataclass(frozen=True)
class Train(Source):
    """Train a model. Ctrl-C stops it with a checkpoint, and --resume goes on from there."""

    settings: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)

    def __call__(self, processes: Processes) -> int:
        settings = self.settings
        if processes.first:
            if settings.mine and processes.count > 1:
                raise ValueError("--mine is for one process: leave out torchrun")
            out = self.folder()  # its name may hold the time
            if settings.mine:  # your `train` need not
                check_training_fits(settings, choose_device(settings.device))
            processes.tell(out)
        else:
            out = processes.told()
        try:
            needed = doors.of_training(settings) if settings.mine else []
            with exercises(settings, needed, partial(rehearse, settings, self.resume)):
                if settings.mine:
                    settings = eager_unless_compiled(settings)
                best = train(settings, out, self.resume, processes)
                told = f"best validation loss {best:.4f}" if processes.first else ""
        except KeyboardInterrupt:
            if processes.first:
                begun = (out / "config.toml").exists()
                way = (
                    f"to go on: {resume_command(out, processes)}" if begun else "nothing had begun"
                )
                print(f"\nstopped; {way}", flush=True)
                processes.tell(None)
            else:
                processes.told()  # before it has ended, torchrun would end the first too
            return 130
        if processes.first:
            where = visible(str(out))
            print(f"{told}; see loss.png and samples.md in {where}")
            print(visible("\n".join(to_try(settings, out))))
        return 0


@dataclass(frozen=True)
class Sample:
    """Print a prompt and the text with which a trained model continues it."""

    run: Path | None = None
    """The run folder. By default the newest run, or the pretrained model where there is none."""
    prompt: Annotated[
        str | None,
        tyro.conf.arg(constructor=str, help_behavior_hint=f"(default: {PROMPTS[0]})"),
    ] = None
    """If the model does not know its characters, the default is from the run's own text."""
    tokens: int = 200
    """How many to add."""
    temperature: float = 0.8
    """0 always takes the likeliest token."""
    top_k: int | None = None
    """Choose among the k likeliest tokens only."""
    top_p: float | None = None
    """Choose among the likeliest tokens that together have this probability."""
    seed: int = 1
    draft: bool = False
    """Guess ahead by the corpus of the run: the same text, sooner if it is long."""
    fp16: bool | None = None
    """Weights in float16. By default those of a large model, where this CPU reads them sooner."""
    mine: bool = False
    """Build the model from your exercises, where they are started, and sample with them."""

    def __post_init__(self):
        check_text(self.tokens, 1, self.seed)
        if self.fp16 and self.mine:
            raise ValueError("fp16 is True, but --mine has layers of yours: leave one of them out")
        check_number("--temperature", self.temperature, least=0)
        if self.top_k is not None:
            check_number("--top-k", self.top_k, least=1)
        if self.top_p is not None:
            check_number("--top-p", self.top_p, above=0, most=1)

    def __call__(self) -> int:
        run = pretrained_unless(self.run)
        config = replace(read_run_config(run), mine=self.mine)
        voice = Voice(sure=not self.mine)
        with exercises(config, doors.of_model(config.model), partial(self.text, run, 2)):
            text = self.text(run, self.tokens, voice)
        voice.end(text)
        return 0

    def text(self, run: Path, new: int, voice: Voice | None = None) -> str:
        """Prompt and continuation; a voice says each character as soon as it is drawn."""
        model, tokenizer = load_run(run)
        beginning = self.prompt
        if beginning is None:
            beginning = beginnings(run, tokenizer)[0]
        prompt = torch.tensor([encoded("--prompt", beginning, tokenizer)])
        pays = self.fp16 is None and not self.mine and pays_to_pack(model)
        if self.fp16 or pays:
            model = packed(model)
        generator = torch.Generator().manual_seed(self.seed)
        choice = self.temperature, self.top_k, self.top_p, generator
        draft = None
        if self.draft:
            text = text_of(run, DRAFT_FROM)
            known = torch.tensor(encoded("the corpus that --draft reads", text, tokenizer))
            draft = NGramDraft(known, tokenizer.vocab_size)
        said = 0

        def say(tokens: Tensor) -> None:
            nonlocal said
            said += len(tokens)
            if voice:
                voice.say(tokenizer.decode(tokens))

        def guess(text: Tensor, n: int, choose: Choose) -> Tensor:
            say(text[said:])
            return draft(text, n, choose)

        if voice:
            print(f"run: {visible(str(run))}", file=sys.stderr)
            if pays:
                print(
                    "weights in float16, which this CPU reads sooner; otherwise: --fp16 False",
                    file=sys.stderr,
                )
            voice.expect(characters_of(tokenizer))
        say(prompt[0])
        if draft:
            return tokenizer.decode(generate_ahead(model, prompt, new, guess, *choice)[0])
        with reading_along(model, say):
            return tokenizer.decode(generate(model, prompt, new, *choice)[0])


@contextmanager
def reading_along(model: nn.Module, say: Callable[[Tensor], None]) -> Iterator[None]:
    """Meanwhile `say` gets each new token of a text when the model reads it: all but the last.

    The first time the model reads the prompt, and nothing is new.
    """
    times = 0

    def hear(_: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal times
        if times and args:
            say(args[0][0, -1:])
        times += 1

    handle = model.register_forward_pre_hook(hear)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Gallery:
    """Write a Markdown page of samples across prompts, temperatures and strategies."""

    run: Path | None = None
    """The run folder, where gallery.md is written. By default the newest run."""
    prompts: tuple[str, ...] = PROMPTS
    """If the model does not know their characters, the default is from the run's own text."""
    tokens: int = 200
    """How many to add to each."""
    seed: int = 1
    mine: bool = False
    """Build the model from your exercises, where they are started, and show it with them."""

    def __post_init__(self):
        if not self.prompts:
            raise ValueError("--prompts is empty; it must be at least one text")
        check_text(self.tokens, len(self.prompts), self.seed)

    def __call__(self) -> int:
        run = chosen(self.run)
        config = replace(read_run_config(run), mine=self.mine)
        needed = [*doors.of_model(config.model), doors.LENGTHS]
        with exercises(config, needed, partial(self.page, run, 2)):
            page = self.page(run, self.tokens)
        replace_file(run / "gallery.md", page.encode())
        print(visible(str(run / "gallery.md")))
        return 0

    def page(self, run: Path, new: int) -> str:
        model, tokenizer = load_run(run)
        prompts = self.prompts
        if prompts == PROMPTS:
            prompts = beginnings(run, tokenizer)
        for prompt in prompts:
            encoded("--prompts", prompt, tokenizer)
        return gallery(model, tokenizer, list(prompts), new, self.seed)


@dataclass(frozen=True)
class Export:
    """Write the model of a run for other programs: as Hugging Face's GPT-2, or in ONNX."""

    to: Literal["hf", "onnx"]
    """hf takes the classic configuration only."""
    out: Path
    """A new folder."""
    run: Path | None = None
    """The run folder. By default the newest run."""

    def __call__(self) -> int:
        write = {"hf": export_hf, "onnx": export_onnx}[self.to]
        write(*load_run(chosen(self.run)), self.out)
        print(f"written to {visible(str(self.out))}; its README.md says how to use it")
        return 0


@dataclass(frozen=True)
class Explore:
    """Write one HTML file that shows the model from inside as it reads what you type, and open it.

    It holds the weights and needs no server: send it to a friend.
    """

    run: Path | None = None
    """The run folder. By default the newest run, or the pretrained model where there is none."""
    out: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """The file, or a folder and a slash.

    By default explore.html in the run folder, or in runs/ for the pretrained model."""
    open: bool = True
    """Open it in the browser."""

    def __call__(self) -> int:
        run = pretrained_unless(self.run)
        boxed = run.resolve() == PRETRAINED.resolve()
        out = Path((RUNS if boxed else run) if self.out is None else self.out)
        if self.out is None or self.out.endswith(("/", os.sep)):
            out /= "explore.html"
        title = "The model in the box" if boxed else run.resolve().name
        write_explorer(run, out, title, partial(beginnings, run, usual=(LINE,)))
        print(visible(str(out)))
        if self.open:
            open_page(out)
        return 0


@dataclass(frozen=True)
class Verify:
    """Check that a run is what it says it is: a table, and exit status 1 if anything is not."""

    run: Path | None = None
    """The run folder. By default the newest run."""

    def __call__(self) -> int:
        return 0 if verify(chosen(self.run)) else 1


@contextmanager
def exercises(
    config: RunConfig, needed: list[doors.Door], rehearsal: Callable[[], Any]
) -> Iterator[None]:
    """Meanwhile, if asked for, your exercises stand in the place of the references."""
    if not config.mine:
        yield
        return
    with your_parts(config, needed, rehearsal) as table:
        print(table, file=sys.stderr)
        yield


def parse(args: list[str]) -> Callable[..., int]:
    if not args:
        return Start()
    if args[:1] != ["train"]:
        return read(
            Annotated[Train, tyro.conf.subcommand("train")]
            | Annotated[Sample, tyro.conf.subcommand("sample")]
            | Annotated[Gallery, tyro.conf.subcommand("gallery")]
            | Annotated[Export, tyro.conf.subcommand("export")]
            | Annotated[Explore, tyro.conf.subcommand("explore")]
            | Annotated[Verify, tyro.conf.subcommand("verify")]
            | Annotated[Learn, tyro.conf.subcommand("learn")]
            | Annotated[Hint, tyro.conf.subcommand("hint")]
            | Annotated[Reset, tyro.conf.subcommand("reset")]
            | Annotated[Check, tyro.conf.subcommand("check")]
            | Annotated[Progress, tyro.conf.subcommand("progress")],
            prog="tiny-transformer",
            args=args,
        )
    # Read twice: the preset decides which defaults the other options have.
    source = read_source(args[1:])
    base = source.base()
    if {"-h", "--help"} & {*args}:
        print(help_of_training(source.preset, base))
        sys.exit(0)
    command = read(
        Train,
        prog="tiny-transformer train",
        description="All options of train; --help has those that a learner changes.",
        args=["--help" if arg == "--help-all" else arg for arg in args[1:]],
        default=Train(preset=source.preset, settings=base),
    )
    if (size := command.settings.model.vocab_size) != base.model.vocab_size:
        raise ValueError(f"model.vocab_size is {size}; it is that of the text: leave it out")
    return command


def read_source(args: list[str]) -> Source:
    source, _ = read(Source, args=args, return_unknown_args=True, add_help=False)
    return source


def read(kind: Any, **how: Any) -> Any:
    """A command line as tyro reads it. What a dataclass refuses is an error like any other.

    tyro would draw a box around it, in which the option has another name. Its boxes are printed
    without their colors, which it chooses by looking at the standard output.
    """
    drawn = io.StringIO()
    try:
        with redirect_stderr(drawn):
            return tyro.cli(kind, **how)
    except SystemExit as exit:
        cause = exit
        while cause := cause.__context__:
            if isinstance(cause, ValueError) and named_by_option(str(cause)):
                raise cause from None
        box = re.sub(r"\x1b\[[\d;]*m", "", drawn.getvalue())
        print(visible(box), end="", file=sys.stderr)
        raise


def sentence(error: Exception) -> str:
    """What went wrong, with the options' own names, and without what C++ adds to it."""
    first = str(error).partition("\n")[0]
    if isinstance(error, FileExistsError):  # where a folder should be made
        return f"{error.filename} is no folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in first:
        return "there is too little memory: a smaller model, batch or text takes less"
    if isinstance(error, ValueError):  # of several lines only where the course wrote them
        return named_by_option(str(error)) or str(error)
    return first


def named_by_option(message: str) -> str | None:
    """The message with the name of an option, --model.n-heads, if it begins with that setting."""
    if message.startswith("--"):
        return message
    name = re.match(r"[\w.]*(?= )|", message)[0]  # of a path there would be more
    for prefix, kind in (
        ("", Train),
        ("", RunConfig),
        ("model.", ModelConfig),
        ("train.", TrainConfig),
    ):
        for setting in fields(kind):
            if name in (setting.name, prefix + setting.name):
                option = f"--{prefix}{setting.name}".replace("_", "-")
                return option + message.removeprefix(name)
    return None


def chosen(run: Path | None) -> Path:
    if run is None:
        return newest_run()
    if not (run / "config.toml").exists():
        raise ValueError(f"--run: no run at {run}; tiny-transformer train makes one")
    return run


def pretrained_unless(run: Path | None) -> Path:
    """The run asked for, else the newest, else the model that comes with the course."""
    if run or list(RUNS.glob("*/config.toml")):
        return chosen(run)
    print("not trained yet: this is the model that comes with the course", file=sys.stderr)
    return PRETRAINED


def newest_run() -> Path:
    runs = sorted(RUNS.glob("*/config.toml"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise FileNotFoundError(f"no run in {RUNS}: train one with tiny-transformer train")
    return runs[-1].parent


def beginnings(run: Path, tokenizer: CharTokenizer, usual: tuple[str, ...] = PROMPTS) -> list[str]:
    """The usual prompts whose characters the model knows, else beginnings of its own lines."""
    known = characters_of(tokenizer)
    if readable := [prompt for prompt in usual if set(prompt) <= set(known)]:
        return readable
    lines = []
    with suppress(CorpusError):  # the text is somewhere else by now
        lines = [line[:20] for line in text_of(run, 100_000).splitlines() if line.strip()]
    own = [line for line in dict.fromkeys(lines) if set(line) <= set(known)]
    return own[: len(PROMPTS)] or [known[0]]


def characters_of(tokenizer: CharTokenizer) -> str:
    return tokenizer.decode(list(range(tokenizer.vocab_size)))


def text_of(run: Path, at_most: int) -> str:
    return load_text(read_run_config(run).corpus, at_most)


def encoded(option: str, prompt: str, tokenizer: CharTokenizer) -> list[int]:
    if not prompt:
        raise ValueError(f"{option} is empty; the model needs at least one character to continue")
    try:
        return tokenizer.encode(prompt)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def check_text(tokens: int, prompts: int, seed: int) -> None:
    check_number("--tokens", tokens, least=0)
    check_fits("--tokens", tokens, "the text", 16 * tokens * prompts)  # int64, and a copy
    check_number("--seed", seed, least=0, most=LARGEST_SEED)
