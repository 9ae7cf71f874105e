"""What a run tells: the progress bar, the metrics, and the pages that it leaves behind."""

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tiny_transformer.capstone.picture import draw_losses
from tiny_transformer.capstone.session import Session, let_go
from tiny_transformer.capstone.snapshots import save_snapshot, snapshot_steps
from tiny_transformer.capstone.terminal import standard_streams, visible
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import RunConfig, read_run_config
from tiny_transformer.engineering.expected import check_like
from tiny_transformer.engineering.reference import MetricsLog, replace_file
from tiny_transformer.multihead.reference import attention_entropy
from tiny_transformer.sampling.reference import generate
from tiny_transformer.tiny_lm.modern import count_modern_parameters
from tiny_transformer.tiny_lm.reference import (
    TinyTransformerLM,
    in_evaluation,
    next_token_distribution,
)
from tiny_transformer.training.curves import explain_curve
from tiny_transformer.training.reference import learning_rate, perplexity

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 0.8": {"temperature": 0.8},
    "temperature 1.0": {"temperature": 1.0},
    "temperature 1.2": {"temperature": 1.2},
    "top-k 10": {"top_k": 10},
    "top-p 0.9": {"top_p": 0.9},
}
SPOKEN = 150  # tokens, at each evaluation
BAR = "step {n}/{total} |{bar}| {elapsed}<{remaining}, {rate_fmt}{postfix}"
CURVE = """<picture>
  <source media="(prefers-color-scheme: dark)" srcset="loss-dark.png">
  <img alt="Training and validation loss by step" src="loss.png">
</picture>"""
SHOWN = {  # in TensorBoard, which opens two groups of curves
    "train_loss": "loss/training",
    "val_loss": "loss/validation",
    "learning_rate": "step/learning_rate",
    "gradient_norm": "step/gradient_norm",
    "tokens_per_second": "step/tokens_per_second",
    "sample": "sample",
}


class Reporter(ExitStack):
    """Shows a run's progress in the terminal, in `metrics.jsonl` and in TensorBoard.

    What an interrupted run logged after its last checkpoint is forgotten: it happens again. An
    evaluation is told a step later, or at the end: by then its checkpoint is on the disk, whatever
    comes of the telling. A run that is stopped leaves the same pages as one that is done.
    """

    def __init__(self, out: Path, config: RunConfig, session: Session):
        super().__init__()
        self.callback(let_go, out)
        self.push(self.stopped)
        self.session, self.recipe = session, config.train
        self.log_every = config.log_every
        self.vocab_size = config.model.vocab_size
        self.said: set[str] = set()
        self.untold: list[str] = []
        self.out, self.due = out, snapshot_steps(config.snapshots, config.train.max_steps)
        self.tokens_per_step = config.train.batch_size * config.model.max_len
        self.since: tuple[int, float] | None = None  # step and time, from which speed is measured
        self.log = MetricsLog(out / "metrics.jsonl")
        read_records(self.log)  # whatever cannot be right is said before anything is forgotten
        self.log.rewind(session.step)
        self.records = self.log.read()
        from tiny_transformer.capstone.board import Board  # sampling needs nothing of it

        self.board = self.enter_context(Board(out, session.step + 1))
        self.enter_context(standard_streams(patient=True))
        print(f"run folder: {visible(str(out))}")
        print(f"model: {count_modern_parameters(config.model):,} parameters", flush=True)
        if session.step == (steps := config.train.max_steps):
            print(f"all of its {steps:,} steps are done: nothing is left to train", flush=True)
        elif session.step:
            told = f"going on after step {session.step:,} of {steps:,}, by its own settings"
            print(told, flush=True)
        self.bar = self.enter_context(
            tqdm(
                total=config.train.max_steps,
                initial=session.step,
                bar_format=BAR,
                unit="step",
                mininterval=0.5,
            )
        )
        self.callback(self.tell)

    def trained(self, loss: Tensor) -> None:
        """A step is done. Reading its loss makes a GPU wait, so that is done now and then."""
        self.tell()
        self.keep_snapshot()
        if self.session.step == 1 or self.session.step % self.log_every == 0:
            self.record(loss)
        self.since = self.since or (self.session.step, time.perf_counter())

    def evaluated(self, loss: Tensor, sample: str) -> None:
        """A step is done, the model was evaluated after it, and this is how it speaks now."""
        self.tell()
        self.keep_snapshot()
        val_loss, model = self.session.val_loss, self.session.model
        spread = attention_spread(model, self.session.characters, sample)
        self.record(loss, val_loss=val_loss, attention_entropy=spread, sample=sample)
        expected = likeliest(model, self.session.characters)
        widths = [f"{math.exp(nats):.1f}" for nats in spread]
        self.untold.append(
            f"step {self.session.step}, validation loss {val_loss:.4f}"
            f"{f', perplexity {perplexity(val_loss):.2f}' if val_loss < 100 else ''}\n"
            f"{visible(expected)}\n"
            f"the layers attend to about {', '.join(widths)} tokens\n"
            f"{visible(sample)}\n"
        )

    def keep_snapshot(self) -> None:
        if self.session.step in self.due:
            save_snapshot(self.out, self.session)

    def tell(self) -> None:
        """Bring what is shown up to date."""
        for text in self.untold:
            self.bar.write(text)
        self.untold.clear()
        self.bar.update(self.session.step - self.bar.n)

    def record(self, loss: Tensor, **evaluation: float | list[float] | str) -> None:
        step, train_loss = self.session.step, loss.item()
        record = {
            "step": step,
            "tokens": step * self.tokens_per_step,
            "seconds": round(self.session.seconds, 3),
            "train_loss": train_loss,
            "learning_rate": learning_rate(step - 1, self.recipe),
            **gradient_norm(self.session.model),
            **evaluation,
        }
        if self.since and not evaluation:  # which takes its own time
            before, then = self.since
            tokens = (step - before) * self.tokens_per_step
            record["tokens_per_second"] = round(tokens / (time.perf_counter() - then))
        self.since = None
        self.records.append(record)
        if evaluation or step == 1 or not math.isfinite(train_loss):
            self.comment()
        self.log.append(record)
        for name, tag in SHOWN.items():
            if name in record:
                self.board.add(tag, record[name], step)
        told = f"loss {train_loss:.2f}"
        if self.session.val_loss is not None:
            told += f", validation {self.session.val_loss:.2f}"
        self.bar.set_postfix_str(told, refresh=False)

    def comment(self) -> None:
        """Say once of each strange thing about the run what it usually means."""
        strange = explain_curve(self.records, self.vocab_size)
        if "not finite" in strange:
            raise ValueError(strange["not finite"])
        for name in strange.keys() - self.said:
            self.untold.append(f"note: {strange[name]}")
        self.said |= strange.keys()

    def stopped(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt and self.records:
            write_report(self.out)


def gradient_norm(model: TinyTransformerLM) -> dict[str, float]:
    """The length of the gradient that the last step took: after clipping, at most `max_norm`.

    Nothing where the model has none, as when processes share its weights or a step was left out.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    return {"gradient_norm": norm} if gradients and math.isfinite(norm) else {}


def speak(model: TinyTransformerLM, tokenizer: CharTokenizer, seed: int) -> str:
    """A few lines from the model as it is, without touching the random state of the run."""
    device = next(model.parameters()).device
    prompt = torch.zeros(1, 1, dtype=torch.long, device=device)  # a newline, where texts have one
    generator = torch.Generator(device).manual_seed(seed)
    tokens = generate(model, prompt, SPOKEN, temperature=0.8, generator=generator)
    return tokenizer.decode(tokens[0]).strip()


def likeliest(model: TinyTransformerLM, characters: str) -> str:
    """What the model expects after a newline, or whatever comes first in the alphabet."""
    first = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    chances, tokens = next_token_distribution(model, first)[0].topk(min(4, len(characters)))
    told = (
        f"{characters[token]!r} {chance:.0%}"
        for token, chance in zip(tokens.tolist(), chances.tolist(), strict=True)
    )
    return f"after {characters[0]!r}: {', '.join(told)}"


def attention_spread(model: TinyTransformerLM, characters: str, text: str) -> list[float]:
    """The mean entropy of attention in each layer, in nats, while the model reads a text."""
    ids = [characters.index(character) for character in text or characters[0]]
    device = next(model.parameters()).device
    tokens = torch.tensor([ids[: model.config.max_len]], device=device)
    return [attention_entropy(weights).mean().item() for weights in attention_maps(model, tokens)]


@torch.no_grad()
def attention_maps(model: TinyTransformerLM, tokens: Tensor) -> list[Tensor]:
    """The weights of attention in each layer, (B, n_heads, T, T), while it reads tokens (B, T)."""
    calls = []
    hooks = [
        block.attention.register_forward_pre_hook(
            lambda layer, args, options: calls.append((layer, args, options)), with_kwargs=True
        )
        for block in model.blocks
    ]
    with in_evaluation(model):
        model(tokens)
        for hook in hooks:
            hook.remove()
        return [
            layer(x, return_weights=True, rotate=options.get("rotate", *more[1:2] or [None]))[1]
            for layer, (x, *more), options in calls  # by name, or after return_weights
        ]


def write_report(out: Path) -> None:
    """Draw the curve and write `samples.md` from the metrics of a run."""
    records, config = read_records(MetricsLog(out / "metrics.jsonl")), read_run_config(out)
    draw_losses(records, out, config)
    page = ["# How it learned to speak", CURVE]
    if (most := config.eval_tokens) is not None:
        page.append(f"Losses are on the validation split, on its first {most:,} tokens at most.")
    for record in records:
        if "val_loss" in record:
            page.append(f"## Step {record['step']}, validation loss {record['val_loss']:.4f}")
            page.append(f"```text\n{record['sample']}\n```")
    replace_file(out / "samples.md", ("\n\n".join(page) + "\n").encode())


def read_records(log: MetricsLog) -> list[dict[str, Any]]:
    """The records of a run's metrics.

    Raises:
        ValueError: names the record that is none of a run's.
    """
    records = log.read()
    for number, record in enumerate(records, 1):
        evaluated = "val_loss" in record
        try:
            check_like(record.get("step"), 0, "step")
            check_like(record.get("train_loss"), 0.0, "train_loss")
            if evaluated:
                check_like(record["val_loss"], 0.0, "val_loss")
            if evaluated:
                record["sample"].encode()
        except (AttributeError, KeyError, ValueError):
            raise ValueError(
                f"{log.path}, line {number}, is no record of a run, with a step and its losses: "
                "delete that line"
            ) from None
    return records
