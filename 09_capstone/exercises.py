"""Your turn: the capstone. Replace each `raise NotImplementedError`, then run `pytest 09_capstone`.

Three sessions, each assembled from the parts of earlier modules; read `session.py` and
`report.py` beside this file first. A run is a folder: `config.toml`, `metrics.jsonl`, the
checkpoints `last/` and `best/`, a TensorBoard log, and at the end `loss.png` and `samples.md`.

What `train` puts together, in the order in which it is needed:

    choose_arithmetic(config, device)               an object: .bf16, .fp16, .compile, .chosen
    make_optimizer(model, config.train)             an optimizer
    Session(model, optimizer, batches, text, config, scaler)
    claim_folder(out, config, resume)               True if there is a checkpoint to go on from
    session.restore(path)
    Reporter(out, config, session)                  a context
    interruptions()                                 a context: a function that says if one came
    training_steps(model, optimizer, tokens, config.train, batches, start, bf16, scaler=scaler)
                                                    an iterator: (steps done, loss)
    evaluate(model, tokens, bf16)                   a float
    speak(model, tokenizer, config.seed)            a few lines
    reporter.evaluated(loss, lines)
    reporter.trained(loss)
    session.save_evaluated(out, config.keep)        after an evaluation
    session.save(path)                              otherwise
    write_report(out)

A session has `step`, `val_loss` and `best_loss`.
"""

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
    """A fresh model of this shape, and the tokenizer that joins it to `text`.

    1. Make the tokenizer of the text.
    2. Build the model, with as many tokens as the tokenizer has, whatever `config` says. `build`
       of module 05 makes yours or ours, and puts in what the configuration has beyond GPT-2.

    >>> text = "to be or not to be"
    >>> model, tokenizer = build_model(ModelConfig(d_model=8, n_heads=2), text)
    >>> model.config.vocab_size, tokenizer.vocab_size
    (7, 7)
    """
    raise NotImplementedError


def train(
    config: RunConfig, out: Path, resume: bool = False, processes: Processes = ALONE
) -> float:
    """Train into the run folder `out` and return the best validation loss, in nats a token.

    The order matters, since each step changes what the next one draws or finds. Leave `processes`
    alone: several of them, started by torchrun, train the reference.

    1. Read the corpus and choose the device. `choose_arithmetic` says whether to train in bfloat16
       or float16 and compiled; `chosen` is a line to print, or empty.
    2. Set every random state by `config.seed`, then build model and tokenizer. From now on the
       run's config has the model's own, with the vocabulary of the text.
    3. Encode the text, as a tensor on the device, and split it. A validation split that is not
       longer than the context is a ValueError that says so. Of a long one only the first
       `config.eval_tokens` count.
    4. Move the model to the device and make its optimizer. The batches get a generator of
       their own, seeded by `config.seed`. In float16 there is a `torch.amp.GradScaler(device.type)`
       too, otherwise the scaler is None. All of them, the text and the config make the session.
    5. Claim the folder, only now: an error above leaves no folder behind. If there is a checkpoint,
       restore the session from `last/`.
    6. Take the training steps, from the one where the session stands, with a Reporter open. To
       train compiled, give them `torch.compile(model)`; all others get the model itself. After each
       step the session learns the number of steps done. At every `config.eval_every` steps and at
       the last one, measure the loss on the validation split for the session (in bfloat16 if
       the steps are), report it with a few lines that the model speaks, and only then save: a run
       that is killed in between goes on from the save before, and reports again. At all the others
       report the training loss alone.
    7. Hold `interruptions` meanwhile. When one came and the run is not finished, save `last/` after
       the step and raise KeyboardInterrupt. A run that is resumed then ends, on the CPU, with
       the same bytes as if nothing had happened.
    8. Write the report.

    >>> text = "to be or not to be, " * 60
    >>> with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
    ...     corpus = Path(folder, "words.txt")
    ...     _ = corpus.write_text(text, encoding="utf-8")
    ...     best = train(replace(PRESETS["smoke"], corpus=str(corpus)), Path(folder, "run"))
    >>> best < math.log(len(set(text)))  # better than guessing
    True
    """
    raise NotImplementedError


def gallery(
    model: TinyTransformerLM,
    tokenizer: CharTokenizer,
    prompts: list[str],
    max_new_tokens: int = 200,
    seed: int = 1,
) -> str:
    """One Markdown page: how the model continues each prompt, by each of the STRATEGIES.

    1. Encode the prompts and pad them on the right to one batch; remember how long each is.
    2. For each strategy, continue the whole batch, with a generator that is new and seeded by
       `seed`, so that no strategy depends on the ones before it.
    3. Decode each row: the prompt and what was added to it, without the padding.
    4. Write the page as below, one heading for each strategy, one block for each prompt, an empty
       line between any two parts, and an end of line at the end.

    >>> model, tokenizer = build_model(ModelConfig(d_model=8, n_heads=2), "to be or not to be")
    >>> page = gallery(model, tokenizer, ["to be"], max_new_tokens=0)
    >>> [line for line in page.splitlines() if line][:6]
    ['# Gallery', '0 tokens each, seed 1, unedited.', '## greedy', '```text', 'to be', '```']
    """
    raise NotImplementedError
