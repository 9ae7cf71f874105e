"""Looks at a run from the outside: is it what its folder says it is?"""

from collections.abc import Iterator
from pathlib import Path

import torch

from tiny_transformer.capstone.reference import load_run
from tiny_transformer.data.corpus import load_text
from tiny_transformer.engineering.config import RunConfig, read_config
from tiny_transformer.engineering.reference import load_checkpoint
from tiny_transformer.sampling.reference import generate
from tiny_transformer.tiny_lm.reference import count_parameters
from tiny_transformer.training.reference import evaluate, split_corpus


def verify(run: Path) -> bool:
    """Print a line for each check of the run, and say whether all of them hold."""
    results = []
    try:
        for name, holds, detail in checks(run):
            print(f"{'ok    ' if holds else 'FAILED'}  {name:24} {detail}")
            results.append(holds)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"FAILED  {error}")
        return False
    return all(results)


@torch.no_grad()
def checks(run: Path) -> Iterator[tuple[str, bool, str]]:
    """(what, whether it holds, the numbers) for each check. A damaged checkpoint ends them."""
    model, tokenizer = load_run(run)
    config = read_config(run / "config.toml", RunConfig())
    states = {path.name: load_checkpoint(path) for path in (run / "best", run / "last")}
    steps = ", ".join(f"{name} at step {state['step']}" for name, state in states.items())
    yield "checkpoints are whole", True, steps

    counted, expected = sum(p.numel() for p in model.parameters()), count_parameters(model.config)
    yield "parameters", counted == expected, f"{counted:,} in the model, {expected:,} by formula"

    text = load_text(config.corpus)
    tokens = torch.tensor(tokenizer.encode(text))
    window = tokens[None, : model.config.max_len]
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

    # A GPU evaluates in bfloat16, which moves the third decimal.
    recorded = states["best"]["val_loss"]
    measured = evaluate(model, split_corpus(tokens)[1])
    close = abs(measured - recorded) < 5e-3
    yield "validation loss", close, f"{measured:.4f} measured, {recorded:.4f} recorded"
