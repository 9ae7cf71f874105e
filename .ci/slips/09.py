from slip import Slip


def swap(code, old, new):
    assert code.count(old) == 1, (code.count(old), old)
    return code.replace(old, new)


TRAIN = r"""
def train(config, out, resume=False, processes=ALONE):
    text = load_text(config.corpus)
    device = choose_device(config.device)
    arithmetic = choose_arithmetic(config, device)
    if arithmetic.chosen:
        print(arithmetic.chosen)
    seed_everything(config.seed)
    model, tokenizer = build_model(config.model, text)
    config = replace(config, model=model.config)
    tokens = torch.tensor(tokenizer.encode(text), device=device)
    train_tokens, val_tokens = split_corpus(tokens)
    if len(val_tokens) <= config.model.max_len:
        raise ValueError(
            f"the validation split has {len(val_tokens)} tokens; it must be longer than the "
            f"context, {config.model.max_len}"
        )
    val_tokens = val_tokens[: config.eval_tokens]
    model.to(device)
    optimizer = make_optimizer(model, config.train)
    batches = torch.Generator().manual_seed(config.seed)
    scaler = torch.amp.GradScaler(device.type) if arithmetic.fp16 else None
    session = Session(model, optimizer, batches, text, config, scaler)
    if claim_folder(out, config, resume):
        session.restore(out / "last")
    compiled = torch.compile(model) if arithmetic.compile else model
    steps = training_steps(
        compiled, optimizer, train_tokens, config.train, batches, start=session.step, STEP_OPTIONS
    )
    last = config.train.max_steps
    with Reporter(out, config, session) as reporter, interruptions() as interrupted:
        for session.step, loss in steps:
            if session.step % config.eval_every == 0 or session.step == last:
                session.val_loss = evaluate(EVALUATE)
                reporter.evaluated(loss, speak(model, tokenizer, config.seed))
                session.save_evaluated(out, config.keep)
            else:
                reporter.trained(loss)
            if interrupted() and session.step < last:
                session.save(out / "last")
                raise KeyboardInterrupt
    write_report(out)
    return session.best_loss
"""
# Found by running, since 06's reference was not opened: how training_steps is told to compile is not known here,
# so a run with arithmetic.compile steps uncompiled. Mend it in these two lines.
TRAIN = TRAIN.replace("STEP_OPTIONS", "bf16=arithmetic.bf16, scaler=scaler")
TRAIN = TRAIN.replace("EVALUATE", "model, val_tokens, bf16=arithmetic.bf16")

GALLERY = r"""
from torch.nn.utils.rnn import pad_sequence


def gallery(model, tokenizer, prompts, max_new_tokens=200, seed=1):
    device = next(model.parameters()).device
    ids = [torch.tensor(tokenizer.encode(prompt), device=device) for prompt in prompts]
    lengths = torch.tensor([len(row) for row in ids], device=device)
    batch = pad_sequence(ids, batch_first=True)
    parts = ["# Gallery", f"{max_new_tokens} tokens each, seed {seed}, unedited."]
    for name, options in STRATEGIES.items():
        parts.append(f"## {name}")
        generator = torch.Generator(device).manual_seed(seed)
        texts = generate(
            model, batch, max_new_tokens, generator=generator, lengths=lengths, **options
        )
        for row, length in zip(texts, lengths.tolist()):
            row = row[: length + max_new_tokens]
            parts.append(f"```text\n{tokenizer.decode(row.tolist())}\n```")
    return "\n\n".join(parts) + "\n"
"""

SLIPS = [
    # ------------------------------------------------------------ build_model
    Slip(
        "build_model",
        "the config's vocabulary",
        """
def build_model(config, text):
    tokenizer = CharTokenizer(text)
    return build(config), tokenizer
""",
        say=["vocab_size|vocabulary|as many tokens"],
        never=["modern", "order"],
    ),
    Slip(
        "build_model",
        "as many tokens as the text is long",
        """
def build_model(config, text):
    tokenizer = CharTokenizer(text)
    return build(replace(config, vocab_size=len(text))), tokenizer
""",
        say=["vocab_size|vocabulary|as many tokens"],
        never=["modern", "order", "config'?s (own )?65"],
    ),
    Slip(
        "build_model",
        "writes into the config",
        """
def build_model(config, text):
    tokenizer = CharTokenizer(text)
    config.vocab_size = tokenizer.vocab_size
    return build(config), tokenizer
""",
        say=["frozen|FrozenInstanceError|cannot assign|replace"],
        never=["modern"],
    ),
    Slip(
        "build_model",
        "classic models only",
        """
def build_model(config, text):
    tokenizer = CharTokenizer(text)
    model = TinyTransformerLM(replace(config, vocab_size=tokenizer.vocab_size))
    return model, tokenizer
""",
        say=[r"\bbuild\b|modern|classic|GPT-2"],
        never=["vocab_size (is|must)", "order"],
    ),
    Slip(
        "build_model",
        "right: a new ModelConfig",
        """
from dataclasses import asdict


def build_model(config, text):
    tok = CharTokenizer(text)
    shape = asdict(config) | {"vocab_size": tok.vocab_size}
    return (build(ModelConfig(**shape)), tok)
""",
        right=True,
    ),
    Slip(
        "build_model",
        "the tokenizer first",
        """
def build_model(config, text):
    tokenizer = CharTokenizer(text)
    return tokenizer, build(replace(config, vocab_size=tokenizer.vocab_size))
""",
        say=["model first"],
        never=["the config said"],
    ),
    Slip(
        "build_model",
        "always the same weights",
        """
def build_model(config, text):
    torch.manual_seed(0)
    tokenizer = CharTokenizer(text)
    return build(replace(config, vocab_size=tokenizer.vocab_size)), tokenizer
""",
        say=["same weights"],
        never=["vocab_size"],
    ),
    Slip(
        "build_model",
        "one token more",
        """
def build_model(config, text):
    tokenizer = CharTokenizer(text)
    return build(replace(config, vocab_size=tokenizer.vocab_size + 1)), tokenizer
""",
        say=["7 different", "vocab_size of 8"],
        never=["modern"],
    ),
    # ------------------------------------------------------------ train
    Slip(
        "train",
        "saves before it reports",
        swap(
            TRAIN,
            "                reporter.evaluated(loss, speak(model, tokenizer, config.seed))\n                session.save_evaluated(out, config.keep)\n",
            "                session.save_evaluated(out, config.keep)\n                reporter.evaluated(loss, speak(model, tokenizer, config.seed))\n",
        ),
        say=["report", "save it after|before it is saved|save"],
        never=["seed"],
    ),
    Slip(
        "train",
        "saves an interrupted step before it reports it",
        swap(
            TRAIN,
            """            else:
                reporter.trained(loss)
            if interrupted() and session.step < last:
                session.save(out / "last")
                raise KeyboardInterrupt
""",
            """            elif interrupted() and session.step < last:
                session.save(out / "last")
                raise KeyboardInterrupt
            else:
                reporter.trained(loss)
""",
        ),
        say=[r"\[1, 2, 4, 5\]", "reported before"],
        never=["other weights"],
    ),
    Slip(
        "train",
        "seeded by 1 whatever the config says",
        swap(TRAIN, "seed_everything(config.seed)", "seed_everything(1)"),
        say=["seed"],
        never=["generator of the batches"],
    ),
    Slip(
        "train",
        "speaks by another seed",
        swap(TRAIN, "speak(model, tokenizer, config.seed)", "speak(model, tokenizer, 1)"),
        say=["config.seed", "says"],
        never=["bytes"],
    ),
    Slip(
        "train",
        "keep ignored",
        swap(TRAIN, "save_evaluated(out, config.keep)", "save_evaluated(out, 0)"),
        say=["keep = 2"],
        never=["seed"],
    ),
    Slip(
        "train",
        "resume ignored",
        swap(TRAIN, "claim_folder(out, config, resume)", "claim_folder(out, config, False)"),
        say=["resume"],
        never=["seed"],
    ),
    Slip(
        "train",
        "resumes whatever it is told",
        swap(TRAIN, "claim_folder(out, config, resume)", "claim_folder(out, config, True)"),
        say=["not to be resumed"],
        never=["seed"],
    ),
    Slip(
        "train",
        "claims the folder first",
        swap(
            swap(
                TRAIN,
                "    if claim_folder(out, config, resume):\n        session.restore",
                "    if going_on:\n        session.restore",
            ),
            "    train_tokens, val_tokens = split_corpus(tokens)\n",
            "    train_tokens, val_tokens = split_corpus(tokens)\n    going_on = claim_folder(out, config, resume)\n",
        ),
        say=["folder", "before"],
        never=["seed"],
    ),
    Slip(
        "train",
        "evaluated in 32 bits",
        swap(
            TRAIN,
            "bf16=arithmetic.bf16)\n                reporter",
            "bf16=False)\n                reporter",
        ),
        say=["to be measured in bfloat16", "yours is .* the one in float32"],
        never=["seed"],
    ),
    Slip(
        "train",
        "every step is reported as trained",
        swap(
            TRAIN,
            "            else:\n                reporter.trained(loss)\n",
            "            reporter.trained(loss)\n",
        ),
        say=["once"],
        never=["seed"],
    ),
    Slip(
        "train",
        "the loss is not the session's",
        swap(
            swap(TRAIN, "session.val_loss = evaluate(", "val_loss = evaluate("),
            "    return session.best_loss",
            "    return val_loss",
        ),
        say=["TypeError|val_loss"],
        never=["the same seed"],
    ),
    Slip(
        "train",
        "validates on the training split",
        swap(TRAIN, "evaluate(model, val_tokens", "evaluate(model, train_tokens"),
        say=["validation split"],
        never=["seed"],
    ),
    Slip(
        "train",
        "the scaler is forgotten in the session",
        swap(
            TRAIN,
            "Session(model, optimizer, batches, text, config, scaler)",
            "Session(model, optimizer, batches, text, config)",
        ),
        say=["scaler"],
        never=["seed"],
    ),
    Slip(
        "train",
        "built before seeding",
        swap(
            swap(TRAIN, "    seed_everything(config.seed)\n", ""),
            "    config = replace(config, model=model.config)\n",
            "    config = replace(config, model=model.config)\n    seed_everything(config.seed)\n",
        ),
        say=["seed", "before|order|build|first|weights|same"],
        never=["generator", "resume"],
    ),
    Slip(
        "train",
        "the config keeps 65 characters",
        swap(TRAIN, "    config = replace(config, model=model.config)\n", ""),
        say=["vocab_size|vocabulary|config"],
        never=["seed", "interrupt"],
    ),
    Slip(
        "train",
        "a validation split as long as the context accepted",
        swap(
            TRAIN,
            "if len(val_tokens) <= config.model.max_len:",
            "if len(val_tokens) < config.model.max_len:",
        ),
        say=["longer|equal|exactly|as long as", "context|max_len|validation"],
        never=["seed", "interrupt", "eval_tokens"],
    ),
    Slip(
        "train",
        "eval_tokens ignored",
        swap(TRAIN, "    val_tokens = val_tokens[: config.eval_tokens]\n", ""),
        say=["eval_tokens"],
        never=["longer than", "interrupt"],
    ),
    Slip(
        "train",
        "validates on what it trains on",
        swap(
            TRAIN,
            "    train_tokens, val_tokens = split_corpus(tokens)\n",
            "    train_tokens, val_tokens = tokens, split_corpus(tokens)[1]\n",
        ),
        say=["validation|split", "train"],
        never=["seed", "interrupt", "eval_tokens"],
    ),
    Slip(
        "train",
        "steps counted from 0 after a resume",
        swap(TRAIN, "start=session.step, ", ""),
        say=["resum|restor|start|where the session stands|step"],
        never=["seed", "batches", "KeyboardInterrupt is missing"],
    ),
    Slip(
        "train",
        "batches draw from an unseeded generator",
        swap(TRAIN, "torch.Generator().manual_seed(config.seed)", "torch.Generator()"),
        say=["generator|batches", "seed"],
        never=["interrupt", "order"],
    ),
    Slip(
        "train",
        "no evaluation at the last step",
        swap(
            TRAIN,
            "if session.step % config.eval_every == 0 or session.step == last:",
            "if session.step % config.eval_every == 0:",
        ),
        say=["last step|last one|the end|evaluat"],
        never=["seed", "interrupt"],
    ),
    Slip(
        "train",
        "the last loss, not the best",
        swap(TRAIN, "return session.best_loss", "return session.val_loss"),
        say=["best"],
        never=["seed", "interrupt"],
    ),
    Slip(
        "train",
        "interrupted without saving",
        swap(TRAIN, '                session.save(out / "last")\n', ""),
        say=["sav|last/|checkpoint"],
        never=["seed", "finished"],
    ),
    Slip(
        "train",
        "KeyboardInterrupt after the last step too",
        swap(TRAIN, "if interrupted() and session.step < last:", "if interrupted():"),
        say=["finished|last step|done|the end|KeyboardInterrupt"],
        never=["not saved|without saving", "seed"],
    ),
    Slip(
        "train",
        "no report",
        swap(TRAIN, "    write_report(out)\n", ""),
        say=[r"report|loss\.png|samples\.md"],
        never=["seed", "interrupt", "Reporter"],
    ),
    Slip(
        "train",
        "right: while and next",
        swap(
            swap(
                TRAIN,
                "        for session.step, loss in steps:\n",
                "        while session.step < last:\n            session.step, loss = next(steps)\n",
            ),
            "if session.step % config.eval_every == 0 or session.step == last:",
            "if session.step in (last, session.step // config.eval_every * config.eval_every):",
        ),
        right=True,
    ),
    # ------------------------------------------------------------ gallery
    Slip(
        "gallery",
        "the global random state",
        swap(
            swap(
                GALLERY,
                "        generator = torch.Generator(device).manual_seed(seed)\n",
                "        torch.manual_seed(seed)\n",
            ),
            "generator=generator, ",
            "",
        ),
        say=["random state"],
        never=["padding"],
    ),
    Slip(
        "gallery",
        "padded on the left",
        swap(
            GALLERY,
            "    batch = pad_sequence(ids, batch_first=True)\n",
            "    batch = torch.stack([torch.nn.functional.pad(row, (int(max(lengths)) - len(row), 0)) for row in ids])\n",
        ),
        say=["'a'"],
        never=["generator"],
    ),
    Slip(
        "gallery",
        "seed ignored",
        swap(GALLERY, ".manual_seed(seed)", ".manual_seed(1)"),
        say=["seed 5"],
        never=["padding"],
    ),
    Slip(
        "gallery",
        "the strategies are headings alone",
        swap(GALLERY, ", **options", ""),
        say=["greedy"],
        never=["padding", "behind"],
    ),
    Slip(
        "gallery",
        "always 200 tokens",
        swap(GALLERY, "batch, max_new_tokens, ", "batch, 200, "),
        say=["length|tokens"],
        never=["padding", "seed of"],
    ),
    Slip(
        "gallery",
        "seed and tokens in each other's place",
        swap(
            GALLERY,
            "{max_new_tokens} tokens each, seed {seed}",
            "{seed} tokens each, seed {max_new_tokens}",
        ),
        say=["tokens each"],
        never=["padding", "generator"],
    ),
    Slip(
        "gallery",
        "cut where the longest prompt ends",
        swap(
            GALLERY, "row[: length + max_new_tokens]", "row[: int(lengths.max()) + max_new_tokens]"
        ),
        say=["length"],
        never=["generator"],
    ),
    Slip(
        "gallery",
        "rows not cut",
        swap(GALLERY, "            row = row[: length + max_new_tokens]\n", ""),
        say=["padding|cut|own end|length|first"],
        never=["generate must", "generator", "seed"],
    ),
    Slip(
        "gallery",
        "generate not told the lengths",
        swap(GALLERY, "lengths=lengths, ", "").replace(
            "    lengths = torch.tensor([len(row) for row in ids], device=device)\n",
            "    lengths = torch.tensor([len(row) for row in ids])\n",
        ),
        say=["length|padding"],
        never=["generator", "cut each row"],
    ),
    Slip(
        "gallery",
        "one generator for all strategies",
        swap(
            swap(GALLERY, "        generator = torch.Generator(device).manual_seed(seed)\n", ""),
            "    for name, options in STRATEGIES.items():\n",
            "    generator = torch.Generator(device).manual_seed(seed)\n    for name, options in STRATEGIES.items():\n",
        ),
        say=["generator|seed", "strateg|new|each|depend"],
        never=["padding", "length"],
    ),
    Slip(
        "gallery",
        "no end of line at the end",
        swap(GALLERY, 'return "\\n\\n".join(parts) + "\\n"', 'return "\\n\\n".join(parts)'),
        say=["end of line|newline|\\\\n|at the end"],
        never=["padding", "generator"],
    ),
    Slip(
        "gallery",
        "right: ids on the CPU, where the model is",
        swap(
            swap(
                GALLERY,
                "torch.tensor(tokenizer.encode(prompt), device=device)",
                "torch.tensor(tokenizer.encode(prompt))",
            ),
            "torch.tensor([len(row) for row in ids], device=device)",
            "torch.tensor([len(row) for row in ids])",
        ),
        right=True,
    ),
    Slip(
        "gallery",
        "right: padded by hand",
        swap(
            swap(GALLERY, "from torch.nn.utils.rnn import pad_sequence\n\n\n", "\n"),
            "    batch = pad_sequence(ids, batch_first=True)\n",
            "    batch = torch.full((len(ids), int(lengths.max())), ids[0][0].item(), device=device)\n"
            "    for i, row in enumerate(ids):\n        batch[i, : len(row)] = row\n",
        ),
        right=True,
    ),
]

# Of the same kind, and slower, or beyond what the gate has time for.
SPARE = {
    ("train", "steps counted from 0 after a resume"),
    ("train", "saves before it reports"),
    ("train", "KeyboardInterrupt after the last step too"),
    ("train", "batches draw from an unseeded generator"),
    ("train", "interrupted without saving"),
    ("train", "eval_tokens ignored"),
    ("train", "the config keeps 65 characters"),
    ("train", "built before seeding"),
    ("train", "a validation split as long as the context accepted"),
    ("build_model", "as many tokens as the text is long"),
    ("build_model", "right: a new ModelConfig"),
    ("train", "no report"),
    ("train", "validates on what it trains on"),
    ("train", "the last loss, not the best"),
    ("build_model", "the tokenizer first"),
    ("build_model", "one token more"),
    ("train", "saves an interrupted step before it reports it"),
    ("train", "seeded by 1 whatever the config says"),
    ("train", "speaks by another seed"),
    ("train", "keep ignored"),
    ("train", "resume ignored"),
    ("train", "resumes whatever it is told"),
    ("train", "claims the folder first"),
    ("train", "evaluated in 32 bits"),
    ("train", "every step is reported as trained"),
    ("train", "the loss is not the session's"),
    ("train", "validates on the training split"),
    ("train", "the scaler is forgotten in the session"),
    ("gallery", "padded on the left"),
    ("gallery", "seed ignored"),
    ("gallery", "the strategies are headings alone"),
    ("gallery", "always 200 tokens"),
    ("gallery", "seed and tokens in each other's place"),
    ("gallery", "cut where the longest prompt ends"),
}
EXTRA = [slip for slip in SLIPS if (slip.exercise, slip.name) in SPARE]
SLIPS = [slip for slip in SLIPS if (slip.exercise, slip.name) not in SPARE]

SAVE = "                session.save_evaluated(out, config.keep)\n"
MEASURE = "                session.val_loss = evaluate(model, val_tokens, bf16=arithmetic.bf16)\n"
SLIPS += [
    Slip(
        "gallery",
        "prompt by prompt",
        """
def gallery(model, tokenizer, prompts, max_new_tokens=200, seed=1):
    parts = ["# Gallery", f"{max_new_tokens} tokens each, seed {seed}, unedited."]
    for name, settings in STRATEGIES.items():
        parts.append(f"## {name}")
        for prompt in prompts:
            generator = torch.Generator().manual_seed(seed)
            ids = torch.tensor([tokenizer.encode(prompt)])
            row = generate(model, ids, max_new_tokens, generator=generator, **settings)[0]
            parts.append(f"```text\\n{tokenizer.decode(row)}\\n```")
    return "\\n\\n".join(parts) + "\\n"
""",
        say=["one batch", "one generator"],
    ),
]
EXTRA += [
    Slip(
        "train",
        "the first tokens are cut before they are counted",
        swap(
            swap(TRAIN, "    val_tokens = val_tokens[: config.eval_tokens]\n", ""),
            "    if len(val_tokens)",
            "    val_tokens = val_tokens[: config.eval_tokens]\n    if len(val_tokens)",
        ),
        say=["eval_tokens = 10", "17 tokens"],
    ),
    Slip(
        "train",
        "saves before it measures",
        swap(swap(TRAIN, SAVE, ""), MEASURE, SAVE + MEASURE),
        say=["that of step 4", "then it saves"],
    ),
]
