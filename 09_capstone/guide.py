"""What the command line says on its way: what to do next, and what may be changed in a run."""

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tiny_transformer.capstone.session import flatten
from tiny_transformer.engineering.config import ABOUT, PRESETS, RunConfig
from tiny_transformer.setup.grading.progress import (
    folders,
    graded,
    next_step,
    read_exercises,
    read_results,
)
from tiny_transformer.tiny_lm.reference import ModelConfig

ROOT = Path(__file__).resolve().parents[1]
LARGER = {"smoke": "cpu", "cpu": "minute", "fast": "minute", "minute": "small"}
CHANGED = {  # what a learner changes in a run, and what is said of it; --help-all has the rest
    "seed": "another number, another run of the same settings",
    "device": "auto, cpu, cuda or mps",
    "model.max_len": "the context: how many tokens it reads at once",
    "model.d_model": "how wide it is",
    "model.n_layers": "how deep",
    "model.n_heads": "how many attention heads share the width",
    "model.dropout": "more, where the validation loss rises again",
    "train.max_steps": "how long it trains",
    "train.batch_size": "on how many sequences at a time",
    "train.max_lr": "the highest learning rate",
}


@dataclass(frozen=True)
class Start:
    """Who types the name alone reads in five lines how far they are and what to do next."""

    def __call__(self) -> int:
        results = read_results(ROOT)
        of = folders(ROOT)
        every = [e for folder in of for e in read_exercises(ROOT, folder, results)]
        states = [exercise.state for exercise in every]
        number = sum(len(graded(ROOT, folder)) for folder in of)
        lines = [f"{states.count('solved')} of {number} exercises are solved."]
        coming = next_step(ROOT, of, results)
        if isinstance(coming, str):
            lines.append(coming)
        elif coming:
            folder = Path(coming.file).parent
            way = "go on" if coming.state == "begun" else f"read {folder}/theory.md, write it"
            lines += [
                f"next: {coming.file}:{coming.line} {coming.name}",
                f"  {way}, then run: pytest {folder}",
                "  tiny-transformer train --mine    with what you have; what is missing is ours",
            ]
        else:
            lines += [
                "next: what you have built",
                "  tiny-transformer train --mine    a model by your code",
                "  tiny-transformer gallery --mine  a page that it writes",
            ]
        lines.append("  tiny-transformer --help          all commands")
        print("\n".join(lines))
        return 0


def to_try(settings: RunConfig, out: Path) -> list[str]:
    """What suggests itself after a run, as commands."""
    mine = " --mine" if settings.mine else ""
    text = f" --corpus {shlex.quote(settings.corpus)}" if settings.corpus else ""
    run = f"--run {shlex.quote(str(out))}{mine}"
    lines = [
        "to try next:",
        f"  tiny-transformer sample {run}",
        f"  tiny-transformer gallery {run}",
        f"  tiny-transformer explore --run {shlex.quote(str(out))}",
    ]
    if larger := LARGER.get(preset_of(settings.model) or ""):
        lines.append(f"  tiny-transformer train --preset {larger}{text}{mine}")
        lines.append(f"    {ABOUT[larger]}")
    return lines


def preset_of(model: ModelConfig) -> str | None:
    """The preset whose model has this shape, whatever its text."""
    like = replace(model, vocab_size=ModelConfig.vocab_size)
    return next((name for name, preset in PRESETS.items() if preset.model == like), None)


def help_of_training(preset: str, base: RunConfig) -> str:
    """The presets, and what a learner changes, with the values that it has now."""
    now = flatten(asdict(base))
    options = {f"{name.replace('_', '-')} {now[name]}": text for name, text in CHANGED.items()}
    options = {
        f"preset {preset}": "one of the above",
        "mine": "with your exercises, where they are started",
        "out FOLDER": "the run folder; by default a new one in runs/",
        "resume": "go on with the newest run, or the one in --out",
        "corpus FILE": "a UTF-8 text of your own, of any size",
        **options,
        "help-all": "all options",
    }
    return "\n".join(
        [
            "tiny-transformer train [OPTIONS] trains a model. Ctrl-C stops and saves it.",
            "",
            "presets:",
            *(f"  {name:10}{text}" for name, text in ABOUT.items()),
            "",
            "what you may change, and what it is without that:",
            *(f"  --{option:24}{text}" for option, text in options.items()),
        ]
    )
