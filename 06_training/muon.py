"""Muon: steps for the matrices inside the blocks in which every direction counts."""

from collections import defaultdict

import torch
from torch import Tensor

from tiny_transformer.training.eager import Eager
from tiny_transformer.training.reference import AdamW


class Muon(Eager, AdamW):
    """Momentum whose step is an orthogonal matrix, in groups that say so; elsewhere AdamW.

    A group with `momentum` holds matrices inside the blocks: all directions of their step get
    nearly the same length, those that the gradient seldom shows too (Jordan et al. 2024).
    """

    def update(self, group: dict) -> None:
        if "momentum" not in group:
            return self.update_in_one_pass(group)
        alike = defaultdict(list)  # matrices of one shape, orthogonalized in one product
        for p in (p for p in group["params"] if p.grad is not None):
            alike[p.shape].append(p)
        for (rows, columns), params in alike.items():
            for p in params:
                state = self.state[p]
                if not state:
                    state["mean"] = torch.zeros_like(p)
                state["mean"].lerp_(p.grad, 1 - group["momentum"])
            # Nesterov: the gradient once more, so that the step looks ahead.
            looks_ahead = [p.grad.lerp(self.state[p]["mean"], group["momentum"]) for p in params]
            steps = orthogonalize(torch.stack(looks_ahead))
            size = group["lr"] * max(1.0, rows / columns) ** 0.5
            for p, step in zip(params, steps, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(step, alpha=size)

    def update_in_one_pass(self, group: dict) -> None:
        """As AdamW, which would go through the memory of large tables ten times."""
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p] = dict(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            self.state[p]["step"] += 1
        states = [self.state[p] for p in params]
        numbers = (
            params,
            [p.grad for p in params],
            [state["mean"] for state in states],
            [state["square"] for state in states],
        )
        torch._fused_adamw_(
            *([own_part(tensor) for tensor in tensors] for tensors in numbers),
            [],
            [torch.tensor(float(self.state[p]["step"]), device=p.device) for p in params],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def own_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor that several share; of others all."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


# The first three quintics of Polar Express (Amsel et al. 2025). Together they take singular values
# from 0.005 to 1 into 0.18 to 1.87, a band that training does not mind; more would narrow it.
QUINTICS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)


def orthogonalize(matrices: Tensor) -> Tensor:
    """(..., m, n) -> (..., m, n): the singular vectors stay, the singular values come closer.

    a x + b x^3 + c x^5 of the matrix is that of each singular value: no decomposition is needed.
    """
    if matrices.size(-2) > matrices.size(-1):
        return orthogonalize(matrices.mT).mT  # products of the short side are the cheap ones
    x = matrices / (1.02 * matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in QUINTICS:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x
