"""The capstone: build the model, train it, and show what it has learned.

A run is a folder: `config.toml`, `metrics.jsonl`, the checkpoints `last/` and `best/`, a
TensorBoard log, and once it is done or stopped `loss.png`, its dark twin, and `samples.md`.
"""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tiny_transformer.capstone.report import STRATEGIES, Reporter, speak, write_report
from tiny_transformer.capstone.session import (
    Session,
    as_saved,
    check_settings,
    claim_folder,
    interruptions,
    saved_when_lost,
)
from tiny_transformer.capstone.snapshots import snapshot_steps
from tiny_transformer.data.encoded import encode_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import RunConfig, read_run_config
from tiny_transformer.engineering.expected import check_weights
from tiny_transformer.engineering.memory import check_model_fits, check_training_fits
from tiny_transformer.engineering.processes import ALONE, Processes
from tiny_transformer.engineering.reference import load_checkpoint, seed_everything
from tiny_transformer.engineering.speed import (
    choose_arithmetic,
    deterministic,
    freed_memory_kept,
    matmul_precision,
)
from tiny_transformer.sampling.reference import generate
from tiny_transformer.setup.device import choose_device
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import (
    evaluate,
    make_optimizer,
    split_corpus,
    training_steps,
)


def build_model(config: ModelConfig, text: str) -> tuple[TinyTransformerLM, CharTokenizer]:
    """A fresh model of this shape, and the tokenizer that joins it to `text`.

    The vocabulary is that of the text, whatever `config.vocab_size` says; the distinct characters
    of a long text will do.
    """
    tokenizer = CharTokenizer(text)
    return build(replace(config, vocab_size=tokenizer.vocab_size)), tokenizer


def train(
    config: RunConfig, out: Path, resume: bool = False, processes: Processes = ALONE
) -> float:
    """Train into the run folder `out` and return the best validation loss, in nats a token.

    With `resume` an interrupted run goes on from `last/`, and on the CPU it ends with the same
    bytes as if nothing had happened. Of several `processes` the first evaluates, writes and returns
    a loss; each has dropout of its own, and a checkpoint holds the first one's random state. With
    `config.shard` they share the weights too, and it has the whole of them only to do so.

    Raises:
        ValueError: if settings, corpus and folder do not fit together, or the loss diverges.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    text, state = (None, None) if processes.first else processes.told()
    chosen = choose_device(config.device)
    if processes.first:
        processes.check(config.train.batch_size, config.train.accumulate)
        check_training_fits(config, chosen, processes.count)
        text = encode_text(config.corpus)
    device = processes.device(chosen)
    shard = config.shard and processes.count > 1
    # All cards of a machine do as its first one does: their gradients are averaged.
    use = choose_arithmetic(config, chosen, shard)
    if use.chosen and processes.first:
        print(use.chosen, flush=True)

    seed_everything(config.seed)
    model, tokenizer = build_model(config.model, text.characters)
    config = replace(config, model=model.config)
    tokens = text.tokens()
    train_tokens, val_tokens = split_corpus(tokens)
    if len(val_tokens) <= config.model.max_len:
        raise ValueError(
            f"corpus has {len(tokens)} characters, {len(val_tokens)} of them for validation; a "
            f"context (model.max_len) of {config.model.max_len} needs more: use a longer text"
        )
    val_tokens = val_tokens[: config.eval_tokens].to(device)
    home = torch.device("cpu") if shard else device  # of the whole model
    optimizer = make_optimizer(model.to(home), config.train)
    batches = torch.Generator().manual_seed(config.seed)
    scaler = torch.amp.GradScaler(device.type) if use.fp16 else None
    session = Session(model, optimizer, batches, text, config, scaler)
    if processes.first:
        if claim_folder(out, config, resume):
            state = session.read(out / "last")
        processes.tell((text if processes.one_machine else text.in_memory(), state))
    if state is not None:
        session.take(state)
    elif not processes.first and (out / "last").exists():
        raise ValueError(
            f"out is {out}, which has a run on this machine and none on that of the first process: "
            "start with --node-rank 0 here, or move the folder"
        )

    if shard:
        from tiny_transformer.engineering.sharding import Sharded  # its imports take seconds

        parts = Sharded(model, optimizer, config.train, device)
        trained, optimizer = parts.model, parts.optimizer
        if not processes.first:  # let go of the whole one
            session.optimizer = optimizer
    else:
        trained = torch.compile(model) if use.compile else model
        trained = processes.parallel(trained, config.train.accumulate)
    steps = training_steps(
        trained,
        optimizer,
        train_tokens,
        config.train,
        batches,
        start=session.step,
        bf16=use.bf16,
        share=processes.share,
        scaler=scaler,
    )
    steps = processes.steps(steps, batches, config.seed, session.step)
    moments = snapshot_steps(config.snapshots, config.train.max_steps)
    with (
        matmul_precision(config.matmul_precision, device),
        deterministic() if use.compile and device.type == "cpu" else nullcontext(),
        # Shared weights come and go, and those that have gone must take no memory.
        freed_memory_kept(2**20) if shard else freed_memory_kept(),
        Reporter(out, config, session) if processes.first else nullcontext() as reporter,
        interruptions() as interrupted,
        saved_when_lost(session, out, processes, shard),
    ):
        for session.step, loss in steps:
            loss = processes.mean(loss)
            finished = session.step == config.train.max_steps
            due = finished or session.step % config.eval_every == 0
            if shard and (due or session.step in moments):
                parts.gather()
            if processes.first and due:
                session.val_loss = evaluate(model.to(device), val_tokens, use.bf16)
                with matmul_precision("highest", device):  # others keep code for each new length
                    sample = speak(model, tokenizer, config.seed)
                reporter.evaluated(loss, sample)
                session.save_evaluated(out, config.keep)
                model.to(home)
            elif processes.first:
                reporter.trained(loss)
            if not finished and processes.any(interrupted()):
                if shard:
                    parts.gather()
                if processes.first:
                    session.save(out / "last")
                raise KeyboardInterrupt
    if processes.first:
        write_report(out)
    return session.best_loss


def gallery(
    model: TinyTransformerLM,
    tokenizer: CharTokenizer,
    prompts: list[str],
    max_new_tokens: int = 200,
    seed: int = 1,
) -> str:
    """One Markdown page: how the model continues each prompt, by each of the STRATEGIES.

    The prompts of one strategy are continued side by side, in one batch.
    """
    ids = [torch.tensor(tokenizer.encode(prompt)) for prompt in prompts]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    lengths = torch.tensor([len(prompt) for prompt in ids])
    page = ["# Gallery", f"{max_new_tokens} tokens each, seed {seed}, unedited."]
    for name, strategy in STRATEGIES.items():
        generator = torch.Generator().manual_seed(seed)
        rows = generate(
            model, tokens, max_new_tokens, generator=generator, lengths=lengths, **strategy
        )
        page.append(f"## {name}")
        for row, length in zip(rows, lengths, strict=True):
            page.append(f"```text\n{tokenizer.decode(row[: length + max_new_tokens])}\n```")
    return "\n\n".join(page) + "\n"


def load_run(run: Path) -> tuple[TinyTransformerLM, CharTokenizer]:
    """The best model of a run so far, on the CPU, and its tokenizer.

    Raises:
        FileNotFoundError: if there is no run, or it has not reached its first checkpoint.
        ValueError: if its checkpoint is damaged, or its model too large for this machine.
    """
    if not (run / "config.toml").exists():
        raise FileNotFoundError(f"no run at {run}: train one with tiny-transformer train")
    config = read_run_config(run)
    try:
        check_model_fits(config)
    except ValueError as error:
        raise ValueError(f"{run / 'config.toml'}: {error}") from None
    path, state = best_checkpoint(run)
    check_settings(state, as_saved(config), path, only="model.")
    characters = state.get("characters")
    if not isinstance(characters, str) or list(characters) != sorted(set(characters)):
        raise ValueError(f"{path / 'state.json'}: characters is {characters!r}, no vocabulary")
    try:
        model, tokenizer = build_model(config.model, characters)
        check_weights(state["model"], model)
    except ValueError as error:
        raise ValueError(f"{path} is not of this run: {error}") from None
    model.load_state_dict(state["model"])
    return model.eval(), tokenizer


def best_checkpoint(run: Path) -> tuple[Path, dict[str, Any]]:
    """Where the best state of a run so far is, and what it holds."""
    try:
        return run / "best", load_checkpoint(run / "best")
    except FileNotFoundError:  # interrupted before its first evaluation
        return run / "last", load_checkpoint(run / "last")
