"""What a run tells: the progress bar, the metrics, and the pages that it leaves behind."""

import io
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

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
from tiny_transformer.training.reference import perplexity

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


class Reporter(ExitStack):
    """Shows a run's progress in the terminal, in `metrics.jsonl` and in TensorBoard.

    What an interrupted run logged after its last checkpoint is forgotten: it happens again. An
    evaluation is told a step later, or at the end: by then its checkpoint is on the disk, whatever
    comes of the telling.
    """

    def __init__(self, out: Path, config: RunConfig, session: Session):
        super().__init__()
        self.callback(let_go, out)
        self.session = session
        self.log_every = config.log_every
        self.vocab_size = config.model.vocab_size
        self.said: set[str] = set()
        self.untold: list[str] = []
        self.out, self.due = out, snapshot_steps(config.snapshots, config.train.max_steps)
        self.tokens_per_step = config.train.batch_size * config.model.max_len
        self.log = MetricsLog(out / "metrics.jsonl")
        read_records(self.log)  # whatever cannot be right is said before anything is forgotten
        self.log.rewind(session.step)
        self.records = self.log.read()
        from tiny_transformer.capstone.board import Board  # sampling needs nothing of it

        self.board = self.enter_context(Board(out / "tensorboard", session.step + 1))
        self.enter_context(standard_streams(patient=True))
        print(f"run folder: {visible(str(out))}")
        print(f"model: {count_modern_parameters(config.model):,} parameters", flush=True)
        self.bar = self.enter_context(
            tqdm(
                total=config.train.max_steps * self.tokens_per_step,
                initial=session.step * self.tokens_per_step,
                unit="tok",
                unit_scale=True,
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
        self.bar.update(self.session.step * self.tokens_per_step - self.bar.n)

    def record(self, loss: Tensor, **evaluation: float | list[float] | str) -> None:
        step, train_loss = self.session.step, loss.item()
        record = {
            "step": step,
            "tokens": step * self.tokens_per_step,
            "seconds": round(self.session.seconds, 3),
            "train_loss": train_loss,
            **evaluation,
        }
        self.records.append(record)
        if evaluation or step == 1 or not math.isfinite(train_loss):
            self.comment()
        self.log.append(record)
        for name in record.keys() & {"train_loss", "val_loss"}:
            self.board.add(name, record[name], step)
        self.bar.set_postfix(loss=train_loss, val=self.session.val_loss, refresh=False)

    def comment(self) -> None:
        """Say once of each strange thing about the run what it usually means."""
        strange = explain_curve(self.records, self.vocab_size)
        if "not finite" in strange:
            raise ValueError(strange["not finite"])
        for name in strange.keys() - self.said:
            self.untold.append(f"note: {strange[name]}")
        self.said |= strange.keys()


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
    """Draw `loss.png` and write `samples.md` from the metrics of a run."""
    records = read_records(MetricsLog(out / "metrics.jsonl"))
    draw_losses(records, out / "loss.png")
    page = ["# How it learned to speak"]
    if (most := read_run_config(out).eval_tokens) is not None:
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


def draw_losses(records: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure  # slow to import, and needed once

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, label in (("train_loss", "training batch"), ("val_loss", "validation split")):
        rows = [record for record in records if name in record]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=label)
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    replace_file(path, picture.getvalue())
