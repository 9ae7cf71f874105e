"""Draws the figures of module 06: python 06_training/figures/draw.py"""

import matplotlib.pyplot as plt
import torch

from tiny_transformer.setup.plots import ORANGE, save, use_style
from tiny_transformer.training.reference import cross_entropy, warmup_cosine

use_style()
figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.5))

chances = torch.linspace(0.002, 0.999, 400)
logits = torch.stack((chances, 1 - chances), dim=-1).log()
target = torch.tensor(0)
left.plot(chances, [cross_entropy(z, target) for z in logits])
left.set(xlabel="probability of the right token", ylabel="loss in nats")
for p, words in ((1 / 65, "a guess among 65"), (0.5, "a coin flip")):
    loss = cross_entropy(torch.tensor([p, 1 - p]).log(), target)
    left.plot(p, loss, "o", color=ORANGE)
    left.annotate(f"{words}: {loss:.2f}", (p, loss), (8, 4), textcoords="offset points")

steps = range(2001)
right.plot(steps, [warmup_cosine(step, 50, 2000, 4e-3, 1e-4) for step in steps])
right.set(xlabel="step", ylabel="learning rate")
save(figure, __file__, "loss_and_schedule.svg")
