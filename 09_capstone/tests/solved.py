"""One learner's answers to the exercises of module 09, which its tests must accept."""

# ruff: noqa: F401  (the parts lie ready before they are used)

import io
import math
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tiny_transformer.capstone.report import (
    STRATEGIES,
    Reporter,
    speak,
    write_report,
)
from tiny_transformer.capstone.session import (
    Session,
    claim_folder,
    interruptions,
)
from tiny_transformer.data.corpus import load_text
from tiny_transformer.embeddings.reference import CharTokenizer
from tiny_transformer.engineering.config import PRESETS, RunConfig
from tiny_transformer.engineering.processes import ALONE, Processes
from tiny_transformer.engineering.reference import seed_everything
from tiny_transformer.engineering.speed import choose_arithmetic
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
    tok = CharTokenizer(text)
    return build(replace(config, vocab_size=tok.vocab_size)), tok


def train(
    config: RunConfig, out: Path, resume: bool = False, processes: Processes = ALONE
) -> float:
    text = load_text(config.corpus)
    device = choose_device(config.device)
    how = choose_arithmetic(config, device)
    if how.chosen:
        print(how.chosen)
    seed_everything(config.seed)
    model, tok = build_model(config.model, text)
    config = replace(config, model=model.config)
    ids = torch.tensor(tok.encode(text)).to(device)
    tr, va = split_corpus(ids)
    if len(va) <= config.model.max_len:
        raise ValueError("corpus too short for the context")
    va = va[: config.eval_tokens]
    model.to(device)
    opt = make_optimizer(model, config.train)
    gen = torch.Generator()
    gen.manual_seed(config.seed)
    scaler = torch.amp.GradScaler(device.type) if how.fp16 else None
    session = Session(model, opt, gen, text, config, scaler)
    if claim_folder(out, config, resume):
        session.restore(out / "last")
    net = torch.compile(model) if how.compile else model
    with Reporter(out, config, session) as rep, interruptions() as hit:
        for n, loss in training_steps(
            net, opt, tr, config.train, gen, session.step, how.bf16, scaler=scaler
        ):
            session.step = n
            last = n == config.train.max_steps
            if last or n % config.eval_every == 0:
                session.val_loss = evaluate(model, va, how.bf16)
                rep.evaluated(loss, speak(model, tok, config.seed))
                session.save_evaluated(out, config.keep)
            else:
                rep.trained(loss)
            if hit() and not last:
                session.save(out / "last")
                raise KeyboardInterrupt
    write_report(out)
    return session.best_loss


def gallery(
    model: TinyTransformerLM,
    tokenizer: CharTokenizer,
    prompts: list[str],
    max_new_tokens: int = 200,
    seed: int = 1,
) -> str:
    ids = [tokenizer.encode(p) for p in prompts]
    width = max(map(len, ids))
    batch = torch.tensor([i + [0] * (width - len(i)) for i in ids])
    lengths = torch.tensor([len(i) for i in ids])
    page = f"# Gallery\n\n{max_new_tokens} tokens each, seed {seed}, unedited.\n"
    for name, options in STRATEGIES.items():
        rows = generate(
            model,
            batch,
            max_new_tokens,
            lengths=lengths,
            generator=torch.Generator().manual_seed(seed),
            **options,
        )
        page += f"\n## {name}\n"
        for row, i in zip(rows, ids, strict=True):
            page += "\n```text\n" + tokenizer.decode(row[: len(i) + max_new_tokens]) + "\n```\n"
    return page
