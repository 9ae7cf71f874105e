"""What the losses of a run usually mean, when they are not as they should be."""

import math
from collections.abc import Mapping, Sequence


def explain_curve(records: Sequence[Mapping[str, float]], vocab_size: int) -> dict[str, str]:
    """What is strange about a run so far, by name: a sentence for each, none for a good run.

    `records` are in the order of the steps, each with "step", "train_loss" and, after an
    evaluation, "val_loss", in nats a token.
    """
    found = {}
    losses = [(record["step"], record["train_loss"]) for record in records]
    (first_step, first), (step, last) = losses[0], losses[-1]
    chance = math.log(vocab_size)

    for record in records:
        if not math.isfinite(record["train_loss"] + record.get("val_loss", 0.0)):
            return {"not finite": not_finite(record["step"])}
    if first_step <= 1 and abs(first - chance) > 0.5:  # of a log that begins where training did
        found["start"] = (
            f"the first loss is {first:.2f}; a model that knows nothing has ln {vocab_size} = "
            f"{chance:.2f}: the weights start too large, or the loss is summed, not averaged"
            if first > chance
            else f"the first loss is {first:.2f}, below ln {vocab_size} = {chance:.2f}: "
            "the model has been trained before, or its targets are among its inputs"
        )
    if step >= 20 and last > first + 0.5:
        found["grow"] = (
            f"the loss is {last:.2f} at step {step} and was {first:.2f} at step {first_step}: the "
            "steps are too long. Lower the learning rate, lengthen the warm-up, or clip the "
            "gradients"
        )
    elif step >= 20 and last > 0.98 * first:
        found["flat"] = (
            f"the loss is {last:.2f} at step {step} and was {first:.2f} at step {first_step}: "
            "nothing learns. The graph is cut, the optimizer has other parameters, or the learning "
            "rate is near 0"
        )
    evaluated = [(record["step"], record["val_loss"]) for record in records if "val_loss" in record]
    if evaluated:
        best_step, best = min(evaluated, key=lambda pair: pair[1])
        if best < 0.5:
            found["leak"] = (
                f"the validation loss is {best:.2f}, less than a text allows that does not repeat "
                "itself: the model sees its targets, unmasked or because they are not shifted"
            )
        if evaluated[-1][1] > best + 0.05:
            found["rise"] = (
                f"the validation loss is {evaluated[-1][1]:.2f} and was {best:.2f} at step "
                f"{best_step}: the model learns its text by heart. Stop there, or use more dropout "
                "or a longer text"
            )
    return found


def not_finite(step: int) -> str:
    return (
        f"the loss is not finite at step {step}: lower the learning rate, clip the gradients, or "
        "look for a query that may attend to nothing"
    )
