"""A run's settings: one frozen dataclass, presets as plain data, and a TOML file each way."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomlkit

from tiny_transformer.engineering.reference import naming, override, replace_file
from tiny_transformer.setup.limits import LARGEST_SEED, check_number
from tiny_transformer.tiny_lm.reference import ModelConfig
from tiny_transformer.training.reference import TrainConfig


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides how a run goes; the same values give the same run."""

    seed: int = 1  # of every random state
    corpus: str | None = None  # a UTF-8 text file; None is tiny Shakespeare
    device: str = "auto"  # auto, cpu, cuda or mps
    bf16: bool | None = None  # bfloat16 where safe; None: where that is fast (speed.py)
    fp16: bool | None = None  # float16 where safe; None: on a GPU that has this but no bfloat16
    compile: bool | None = None  # torch.compile the training step; None: on a GPU that can
    matmul_precision: Literal["highest", "high", "medium"] = "highest"  # see `speed.py`
    log_every: int = 10  # steps between two lines of the metrics
    eval_every: int = 250  # steps between two evaluations; each writes a checkpoint too
    eval_tokens: int | None = 200_000  # of the validation split, its first; None is all
    mine: bool = False  # build the capstone from your exercises, where they are started
    same_start: bool = False  # --mine begins with the reference's first weights, to compare
    keep: int = 0  # numbered checkpoints to keep beside last/ and best/, the best so many
    shard: bool = False  # several processes share the weights too: each keeps a part of them
    snapshots: int = 0  # weights to keep in bfloat16, from so many moments evenly over log(step)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        check_number("seed", self.seed, least=0, most=LARGEST_SEED, whole=True)
        for name, least in (("log_every", 1), ("eval_every", 1), ("keep", 0), ("snapshots", 0)):
            check_number(name, getattr(self, name), least=least, whole=True)
        if self.eval_tokens is not None:
            check_number("eval_tokens", self.eval_tokens, least=2, whole=True)
        if self.bf16 and self.fp16:
            raise ValueError("fp16 is True, and so is bf16; one of them must be left out")


# The width of `cpu` by a newer recipe. In so short a time its other two layers would add nothing.
FAST = RunConfig(
    device="cpu",
    matmul_precision="medium",
    model=ModelConfig(
        n_layers=2,
        n_heads=2,
        positions="rope",
        bias=False,
        tie_weights=False,
        qk_norm=True,
        token_shift=True,
        ngrams=8192,
        zero_init=True,
    ),
    train=TrainConfig(
        batch_size=16,
        max_steps=100,
        warmup_steps=10,
        max_lr=2e-2,
        min_lr=0.0,
        weight_decay=0.0,
        ngram_decay=1.0,
        schedule="wsd",
        decay_fraction=0.8,
        optimizer="muon",
        muon_lr=0.03,
        order="even",
    ),
)

ABOUT = {  # the presets, in the order in which they grow
    "smoke": "seconds: to see every part move",
    "cpu": "two minutes on two laptop cores",
    "fast": "about ten seconds of a newer recipe, with two layers",
    "minute": "a minute or one and a half of a newer recipe, with a context of 128",
    "small": "half an hour on one core with bfloat16, and a C++ compiler",
    "gpu": "the published baby GPT, 10.6 million parameters: for a GPU",
}

PRESETS = {
    "smoke": RunConfig(
        device="cpu",
        eval_every=20,
        model=ModelConfig(max_len=32, d_model=32, n_layers=2, n_heads=2, d_ff=128),
        train=TrainConfig(max_steps=40, warmup_steps=5, max_lr=1e-2, min_lr=1e-3),
    ),
    "cpu": RunConfig(
        device="cpu",
        eval_every=300,
        model=ModelConfig(positions="rope", bias=False, ngrams=4096),
        train=TrainConfig(batch_size=16, warmup_steps=50, max_lr=4e-3, ngram_decay=1.0),
    ),
    "fast": FAST,
    # Twice the context and half the rate, for a minute.
    "minute": override(
        FAST,
        {
            "eval_every": 275,
            "model.max_len": 128,
            "train.max_steps": 1100,
            "train.max_lr": 1e-2,
            "train.muon_lr": 0.02,
            "train.ngram_decay": 2.0,
            "train.decay_fraction": 0.9,
        },
    ),
    "small": RunConfig(
        device="cpu",
        bf16=True,
        compile=True,
        model=ModelConfig(
            max_len=256,
            d_model=160,
            n_layers=6,
            n_heads=5,
            d_ff=640,
            norm="rms",
            positions="rope",
            bias=False,
            qk_norm=True,
            activation="relu2",
            token_shift=True,
        ),
        train=TrainConfig(
            batch_size=16,
            max_steps=2600,
            warmup_steps=50,
            max_lr=8e-3,
            min_lr=0.0,
            weight_decay=0.2,
            schedule="wsd",
            optimizer="muon",
            order="even",
        ),
    ),
    # Two passes a step, so that 4 GB are enough in float32 too (benchmarks/gpu_memory.py).
    "gpu": RunConfig(
        matmul_precision="high",
        model=ModelConfig(
            max_len=256,
            d_model=384,
            n_layers=6,
            n_heads=6,
            d_ff=1536,
            dropout=0.2,
            norm="rms",
            positions="rope",
            bias=False,
            qk_norm=True,
            token_shift=True,
        ),
        train=TrainConfig(
            batch_size=64,
            accumulate=2,
            max_steps=2500,
            warmup_steps=50,
            max_lr=8e-3,
            min_lr=0.0,
            schedule="wsd",
            optimizer="muon",
        ),
    ),
}


def read_config(path: Path, base: RunConfig) -> RunConfig:
    """`base` with the settings of a TOML file.

    Raises:
        ValueError: if the file is not TOML, or names the setting that is wrong.
    """
    if path.exists() and not path.is_file():  # a pipe keeps one waiting, a device may not end
        raise ValueError(f"{path} is not a file")
    try:
        with naming(path):
            text = path.read_text(encoding="utf-8-sig")  # some editors put a mark in front
        settings = tomlkit.parse(text).unwrap()
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, deep nesting
        raise ValueError(f"{path} is not TOML: {error}") from None
    if "preset" in settings:
        raise ValueError(f"{path}: preset is no setting but an option: --preset NAME")
    try:
        return override(base, settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_run_config(out: Path) -> RunConfig:
    """The settings of the run in the folder `out`, whose file leaves out what is None."""
    return read_config(out / "config.toml", RunConfig(eval_tokens=None))


def write_config(path: Path, config: RunConfig) -> None:
    replace_file(path, tomlkit.dumps(without_none(asdict(config))).encode())


def without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: a setting left at None is left out."""
    return {
        key: without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }
