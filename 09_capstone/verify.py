"""Looks at a run from the outside: is it what its folder says it is?"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.capstone.report import read_records
from tiny_transformer.capstone.session import Session, check_settings, has_checkpoint
from tiny_transformer.data.encoded import encode_text
from tiny_transformer.engineering.config import read_run_config
from tiny_transformer.engineering.expected import check_weights
from tiny_transformer.engineering.reference import MetricsLog, load_checkpoint
from tiny_transformer.sampling.reference import generate
from tiny_transformer.tiny_lm.modern import count_modern_parameters
from tiny_transformer.training.reference import evaluate, make_optimizer, split_corpus

Check = tuple[str, bool | None, str]  # what, whether it holds, if that can be told, the numbers
VERDICTS = {True: "ok", False: "FAILED", None: "unknown"}


def verify(run: Path) -> bool:
    """Print a line for each check of the run, and say whether none of them fails."""
    results = []
    for name, holds, detail in to_the_end(checks(run)):
        print(f"{VERDICTS[holds]:7} {name:24} {detail}")
        results.append(holds)
    return False not in results


def to_the_end(checks: Iterator[Check]) -> Iterator[Check]:
    try:
        yield from checks
    except (OSError, RuntimeError, ValueError) as error:
        yield str(error), False, ""


@torch.no_grad()
def checks(run: Path) -> Iterator[Check]:
    """Each check of the run. A damaged checkpoint ends them."""
    model, tokenizer = load_run(run)
    config = read_run_config(run)
    text = encode_text(config.corpus)
    session = Session(model, make_optimizer(model, config.train), torch.Generator(), text, config)
    states = {}
    for path in (run / "best", run / "last"):
        if not has_checkpoint(path):
            if os.path.lexists(path):
                raise ValueError(f"{path} is no folder")
            yield f"{path.name}/", None, "there is none"
            continue
        state = states[path.name] = load_checkpoint(path)
        try_on(session, state, path, whole="optimizer" in state and not config.mine)
        yield f"{path.name}/ is whole", True, f"step {state.get('step')}"
        if "settings" not in state:
            yield f"{path.name}/'s settings", None, "it does not say what it was made with"
    for folder in ("checkpoints", "snapshots"):
        numbered = sorted(run.glob(f"{folder}/step-*"))
        for path in numbered:
            load_checkpoint(path)
        if numbered:
            yield f"{folder}/ is whole", True, f"{len(numbered)} of them"
    records = read_records(MetricsLog(run / "metrics.jsonl"))
    yield "metrics.jsonl", True if records else None, f"{len(records)} records"

    counted = sum(p.numel() for p in model.parameters())
    expected = count_modern_parameters(model.config)
    yield "parameters", counted == expected, f"{counted:,} in the model, {expected:,} by formula"

    tokens = text.tokens()
    window = tokens[None, : model.config.max_len].long()
    logits = model(window)
    changed = window.clone()
    changed[0, -1] = (changed[0, -1] + 1) % tokenizer.vocab_size
    leak = (model(changed)[:, :-1] - logits[:, :-1]).abs().max().item()
    yield "the future is hidden", leak < 1e-6, f"largest effect on the past {leak:.1e}"

    for strategy, temperature in (("greedy", 0.0), ("sampled", 0.8)):
        fast, slow, again = (
            generate(
                model,
                window[:, :8],
                2 * model.config.max_len,  # past the context, where the window moves on
                temperature,
                generator=torch.Generator().manual_seed(1),
                use_cache=use_cache,
            )
            for use_cache in (True, False, True)
        )
        same = int((fast == slow).sum())
        yield f"cache, {strategy}", same == fast.numel(), f"{same} of {fast.numel()} tokens agree"
    yield "same seed, same text", torch.equal(fast, again), f"{fast.numel()} tokens"

    state = next(iter(states.values()))  # that of the model
    recorded, part = state.get("val_loss"), split_corpus(tokens)[1][: config.eval_tokens]
    measured = evaluate(model, part)
    # A GPU evaluates in bfloat16, which moves the third decimal.
    close = abs(measured - recorded) < 5e-3 if isinstance(recorded, float) else None
    told = f"{recorded:.4f} recorded" if close is not None else "none recorded"
    yield "validation loss", close, f"{measured:.4f} on {len(part):,} tokens, {told}"


def try_on(session: Session, state: dict[str, Any], path: Path, whole: bool) -> None:
    """See that a run could go on from this checkpoint; of one that is not whole, that it speaks.

    The model in the box has only its weights, and an optimizer of yours is known to your run alone.
    """
    if whole:
        session.read(path)
        return
    if state.get("corpus", session.corpus) != session.corpus:
        raise ValueError(f"corpus is not the text that {path} was trained on")
    check_settings(state, session.settings, path)
    try:
        check_weights(state["model"], session.model)
    except ValueError as error:
        raise ValueError(f"{path} is not of this run: {error}") from None
