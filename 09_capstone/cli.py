"""The command line: `tiny-transformer train`, `sample`, `gallery`, `export` and the others."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from tiny_transformer.capstone.interchange import export_hf, export_onnx
from tiny_transformer.capstone.reference import gallery, load_run, train
from tiny_transformer.capstone.session import resume_command
from tiny_transformer.capstone.verify import verify
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.config import PRESETS, RunConfig, read_config, read_run_config
from tiny_transformer.engineering.processes import Processes, joined
from tiny_transformer.engineering.speed import packed
from tiny_transformer.sampling.reference import generate
from tiny_transformer.sampling.speculative import NGramDraft, generate_ahead
from tiny_transformer.setup.progress import folders, read_results, summary

RUNS = Path("runs")
ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = Path(__file__).with_name("pretrained")
OPTIONS = (tyro.conf.FlagCreatePairsOff,)


def main() -> None:
    try:
        with joined() as processes:
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
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"tiny-transformer: {error}")


def default_preset() -> str:
    return "gpu" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Source:
    """Where the settings of a run come from. Options on the command line change them."""

    preset: Literal["smoke", "fast", "minute", "cpu", "small", "gpu"] = field(
        default_factory=default_preset
    )
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
        if self.resume and (self.folder() / "config.toml").exists():
            return read_run_config(self.folder())
        preset = PRESETS[self.preset]
        return read_config(self.config, preset) if self.config else preset


@dataclass(frozen=True)
class Train(Source):
    """Train a model. Ctrl-C stops it with a checkpoint, and --resume goes on from there."""

    settings: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)

    def __call__(self, processes: Processes) -> int:
        settings = self.settings
        if processes.first:
            if settings.mine and processes.count > 1:
                raise ValueError("mine is for one process: leave out torchrun")
            out = self.folder()  # its name may hold the time
            print(f"run folder: {out}", flush=True)
            processes.tell(out)
        else:
            out = processes.told()
        try:
            if settings.mine:  # in full precision and uncompiled, as the exercises are
                settings = replace(
                    settings, bf16=bool(settings.bf16), compile=bool(settings.compile)
                )
            with exercises(settings.mine):
                together = {} if settings.mine else {"processes": processes}  # yours is alone
                best = train(settings, out, self.resume, **together)
        except KeyboardInterrupt:
            if processes.first:
                print(f"\nstopped; to go on: {resume_command(out, processes)}", flush=True)
                processes.tell(None)
            else:
                processes.told()  # before it has ended, torchrun would end the first too
            return 130
        if processes.first:
            print(f"best validation loss {best:.4f}; see loss.png and samples.md in {out}")
        return 0


@dataclass(frozen=True)
class Sample:
    """Print a prompt and the text with which a trained model continues it."""

    run: Path | None = None
    """The run folder. By default the newest run, or the pretrained model where there is none."""
    prompt: str = "ROMEO:"
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
    """Guess ahead by the corpus of the run: the same text, in half the time if it is long."""
    mine: bool = False
    """Build the model from your exercises, where they are started, and sample with them."""

    def __call__(self) -> int:
        with exercises(self.mine):
            print(self.text())
        return 0

    def text(self) -> str:
        try:
            run = self.run or newest_run()
        except FileNotFoundError:
            run = PRETRAINED
            print("not trained yet: this is the model that comes with the course", file=sys.stderr)
        model, tokenizer = load_run(run)
        try:
            prompt = torch.tensor([tokenizer.encode(self.prompt)], dtype=torch.long)
        except ValueError as error:
            raise ValueError(f"prompt: {error}") from None
        if not self.mine:  # packed weights would be in the way of code that looks at them
            model = packed(model)
        generator = torch.Generator().manual_seed(self.seed)
        choice = self.temperature, self.top_k, self.top_p, generator
        if not self.draft:
            return tokenizer.decode(generate(model, prompt, self.tokens, *choice)[0])
        corpus = load_text(read_run_config(run).corpus)
        draft = NGramDraft(torch.tensor(tokenizer.encode(corpus)))
        return tokenizer.decode(generate_ahead(model, prompt, self.tokens, draft, *choice)[0])


@dataclass(frozen=True)
class Gallery:
    """Write a Markdown page of samples across prompts, temperatures and strategies."""

    run: Path | None = None
    """The run folder, where gallery.md is written. By default the newest run."""
    prompts: tuple[str, ...] = ("ROMEO:", "KING RICHARD III:\n", "To be, or not to be")
    tokens: int = 200
    """How many to add to each."""
    seed: int = 1

    def __call__(self) -> int:
        run = self.run or newest_run()
        page = gallery(*load_run(run), list(self.prompts), self.tokens, self.seed)
        (run / "gallery.md").write_text(page, encoding="utf-8")
        print(run / "gallery.md")
        return 0


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
        write(*load_run(self.run or newest_run()), self.out)
        print(f"written to {self.out}; its README.md says how to use it")
        return 0


@dataclass(frozen=True)
class Verify:
    """Check that a run is what it says it is: a table, and exit status 1 if anything is not."""

    run: Path | None = None
    """The run folder. By default the newest run."""

    def __call__(self) -> int:
        return 0 if verify(self.run or newest_run()) else 1


@dataclass(frozen=True)
class Progress:
    """Print how far you are: every module's exercises, by your code and its last tests."""

    def __call__(self) -> int:
        results = read_results(ROOT)
        for folder in folders(ROOT):
            print(summary(ROOT, folder, results))
        return 0


@contextmanager
def exercises(mine: bool) -> Iterator[None]:
    """Meanwhile, if asked for, your exercises stand in the place of the references."""
    if not mine:
        yield
        return
    from tiny_transformer.capstone.mine import your_parts  # brings pytest, slow to import

    with your_parts() as table:
        print(table, file=sys.stderr)
        yield


def parse(args: list[str]) -> Train | Sample | Gallery | Export | Verify | Progress:
    if args[:1] != ["train"]:
        return tyro.cli(
            Annotated[Train, tyro.conf.subcommand("train")]
            | Annotated[Sample, tyro.conf.subcommand("sample")]
            | Annotated[Gallery, tyro.conf.subcommand("gallery")]
            | Annotated[Export, tyro.conf.subcommand("export")]
            | Annotated[Verify, tyro.conf.subcommand("verify")]
            | Annotated[Progress, tyro.conf.subcommand("progress")],
            prog="tiny-transformer",
            args=args,
            config=OPTIONS,
        )
    # Read twice: the preset decides which defaults the other options have.
    source, others = read_source(args[1:], Source())
    if "--mine" in others or source.base().mine and "--no-mine" not in others:
        source, _ = read_source(args[1:], Source(preset="cpu"))  # what the exercises can do
    return tyro.cli(
        Train,
        prog="tiny-transformer train",
        args=args[1:],
        default=Train(preset=source.preset, settings=source.base()),
        config=OPTIONS,
    )


def read_source(args: list[str], default: Source) -> tuple[Source, list[str]]:
    return tyro.cli(
        Source,
        args=args,
        default=default,
        return_unknown_args=True,
        add_help=False,
        config=OPTIONS,
    )


def newest_run() -> Path:
    runs = sorted(RUNS.glob("*/config.toml"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise FileNotFoundError(f"no run in {RUNS}: train one with tiny-transformer train")
    return runs[-1].parent
