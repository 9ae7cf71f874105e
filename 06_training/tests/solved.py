"""One learner's answers to the exercises of module 06, which its tests must accept."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def split_corpus(tokens: Tensor, val_fraction: float = 0.1) -> tuple[Tensor, Tensor]:
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} is not between 0 and 1")
    n = int((1 - val_fraction) * len(tokens))
    return tokens[:n], tokens[n:]


def get_batch(
    tokens: Tensor, batch_size: int, block_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    choices = len(tokens) - block_size
    if choices < 1:
        raise ValueError(f"tokens has only {len(tokens)}, too few for block_size={block_size}")
    starts = torch.randint(0, choices, (batch_size,), generator=generator).tolist()
    inputs = torch.stack([tokens[i : i + block_size] for i in starts])
    targets = torch.stack([tokens[i + 1 : i + 1 + block_size] for i in starts])
    return inputs, targets


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets is {tuple(targets.shape)}, logits is {tuple(logits.shape)}")
    log_p = torch.log_softmax(logits, dim=-1)
    return -log_p.gather(-1, targets[..., None]).mean()


def perplexity(loss: Tensor | float) -> float:
    return math.e ** float(loss)


def warmup_cosine(
    step: int, warmup_steps: int, max_steps: int, max_lr: float, min_lr: float
) -> float:
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1) * max_lr
    if step >= max_steps:
        return min_lr
    done = (step - warmup_steps) / (max_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(done * math.pi))


def clip_gradients(params: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    grads = [p.grad for p in params if p.grad is not None]
    length = torch.sqrt(sum(((g**2).sum() for g in grads), torch.tensor(0.0)))
    if length > max_norm:
        for g in grads:
            g *= max_norm / length
    return length


class AdamW(torch.optim.Optimizer):
    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                s = self.state[p]
                if "t" not in s:
                    s["t"] = 0
                    s["m"] = torch.zeros_like(p)
                    s["v"] = torch.zeros_like(p)
                s["t"] += 1
                s["m"].mul_(b1).add_(p.grad, alpha=1 - b1)
                s["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                m_hat = s["m"] / (1 - b1 ** s["t"])
                v_hat = s["v"] / (1 - b2 ** s["t"])
                p -= group["lr"] * group["weight_decay"] * p
                p -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    max_norm: float,
    accumulate: int = 1,
    bf16: bool = False,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    half = torch.float16 if scaler is not None else torch.bfloat16 if bf16 else None
    model.train()
    optimizer.zero_grad()
    losses = []
    rows = len(inputs) // accumulate
    for i in range(accumulate):
        x, y = inputs[i * rows : (i + 1) * rows], targets[i * rows : (i + 1) * rows]
        if half is None:
            logits = model(x)
        else:
            with torch.autocast(x.device.type, half):
                logits = model(x)
            logits = logits.to(torch.float32)
        loss = cross_entropy(logits, y) / accumulate
        if scaler is None:
            loss.backward()
        else:
            scaler.scale(loss).backward()
        losses.append(loss.detach())
    if scaler is not None:
        scaler.unscale_(optimizer)
    clip_gradients(model.parameters(), max_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return sum(losses)
