"""Wrong turns that learners take in module 09, and what to say to each."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from tiny_transformer.capstone import reference, report
from tiny_transformer.capstone.report import STRATEGIES
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import PRESETS, RunConfig
from tiny_transformer.sampling.reference import generate
from tiny_transformer.setup.grading.diagnosis import Misconception, probe
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import (
    TrainConfig,
    evaluate,
    split_corpus,
    training_steps,
)

TEXT = "to be or not to be, " * 20 + "that is the question"
SMALL = ModelConfig(max_len=8, d_model=8, n_layers=1, n_heads=2, d_ff=16)


@probe("build_model")
def a_text_of_few_characters(build_model: Callable) -> dict[str, int]:
    model, tokenizer = build_model(SMALL, TEXT)
    return {
        "the tokenizer's vocabulary": tokenizer.vocab_size,
        "the model's vocabulary": model.config.vocab_size,
    }


@probe("train")
def two_runs_of_one_seed_and_one_that_is_over(train: Callable) -> dict[str, bool]:
    with (
        TemporaryDirectory() as folder,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        patch.object(report, "draw_losses"),  # slow, and not looked at,
        patch.object(report, "SPOKEN", 10),  # as is what the model says
    ):
        corpus, run, again = (Path(folder, name) for name in ("words.txt", "run", "again"))
        corpus.write_text(TEXT, encoding="utf-8")
        steps = TrainConfig(batch_size=4, max_steps=2, warmup_steps=0)
        config = replace(
            PRESETS["smoke"], corpus=str(corpus), eval_every=2, model=SMALL, train=steps
        )
        told = train(config, run)
        model, tokenizer = reference.load_run(run)
        measured = evaluate(model, split_corpus(torch.tensor(tokenizer.encode(TEXT)))[1])
        before = weights(run)
        train(config, again)
        repeats = weights(again) == before
        train(config, run, resume=True)
        return {
            "the loss is that of the saved weights on the validation split": (
                abs(told - measured) < 1e-5
            ),
            "two runs of one seed are the same": repeats,
            "resuming a run that is over changes nothing": weights(run) == before,
        }


def weights(run: Path) -> bytes:
    return (run / "last" / "model.safetensors").read_bytes()


@probe("gallery")
def a_short_prompt_alone_and_beside_a_longer_one(gallery: Callable) -> dict[str, bool]:
    model, tokenizer = reference.build_model(SMALL, TEXT)
    alone, both = (gallery(model, tokenizer, prompts, 4) for prompts in (["no"], ["to be", "no"]))
    greedy = alone.split("```")[1]
    begun = {
        f"every way of sampling continues {prompt!r} once": (
            both.count(f"```text\n{prompt}") == len(STRATEGIES)
        )
        for prompt in ("to be", "no")
    }
    return {"a prompt is continued as if it stood alone": greedy in both, **begun}


def keep_the_vocabulary_of_the_config(
    config: ModelConfig, text: str
) -> tuple[TinyTransformerLM, CharTokenizer]:
    return TinyTransformerLM(config), CharTokenizer(text)


def validate_on_everything(config: RunConfig, out: Path, resume: bool = False) -> float:
    with patch.object(reference, "split_corpus", lambda tokens: (tokens, tokens)):
        return reference.train(config, out, resume)


def build_before_seeding(config: RunConfig, out: Path, resume: bool = False) -> float:
    with patch.object(reference, "seed_everything"):
        return reference.train(config, out, resume)


def restore_and_begin_again(config: RunConfig, out: Path, resume: bool = False) -> float:
    def from_the_first(*args: Any, start: int, **options: Any) -> Any:
        return training_steps(*args, **options)

    with patch.object(reference, "training_steps", from_the_first):
        return reference.train(config, out, resume)


def continue_the_padding(
    model: TinyTransformerLM,
    tokenizer: CharTokenizer,
    prompts: list[str],
    max_new_tokens: int = 200,
    seed: int = 1,
) -> str:
    ids = [torch.tensor(tokenizer.encode(prompt)) for prompt in prompts]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    page = ["# Gallery", f"{max_new_tokens} tokens each, seed {seed}, unedited."]
    for name, strategy in STRATEGIES.items():
        generator = torch.Generator().manual_seed(seed)
        rows = generate(model, tokens, max_new_tokens, generator=generator, **strategy)
        page.append(f"## {name}")
        page += [f"```text\n{tokenizer.decode(row)}\n```" for row in rows]
    return "\n\n".join(page) + "\n"


MISCONCEPTIONS = [
    Misconception(
        "build_model",
        wrong=keep_the_vocabulary_of_the_config,
        hint="Your model has as many tokens as its config says, whatever the text has. Of a larger "
        "alphabet it cannot read every character; of a smaller one it can draw ids that no "
        "character has. Give it the tokenizer's vocab_size.",
    ),
    Misconception(
        "train",
        wrong=validate_on_everything,
        hint="Your validation loss is not that of the validation split alone. On text that it was "
        "trained on, a model that has learned by heart looks like the best, and is kept.",
    ),
    Misconception(
        "train",
        wrong=build_before_seeding,
        hint="Two runs of one seed come out different. Whatever draws at random, and the weights "
        "are drawn when the model is built, must come after the seed is set.",
    ),
    Misconception(
        "train",
        wrong=restore_and_begin_again,
        hint="A run that was over trains on when it is resumed: the weights came back, and the "
        "steps were counted from 0 again. The session remembers where it stood; start there, or "
        "the schedule warms up a second time.",
    ),
    Misconception(
        "gallery",
        wrong=continue_the_padding,
        hint="A short prompt is continued behind its padding, as if you had typed the characters "
        "that fill it up. `generate` must know the length of each prompt.",
    ),
]
