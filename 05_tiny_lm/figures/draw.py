"""Draws the figures of module 05: python 05_tiny_lm/figures/draw.py"""

import matplotlib.pyplot as plt

from tiny_transformer.setup.plots import save, use_style
from tiny_transformer.tiny_lm.modern import count_modern_parameters
from tiny_transformer.tiny_lm.reference import ModelConfig

SHAPES = {
    "default": ModelConfig(),
    "gpu preset": ModelConfig(
        max_len=256,
        d_model=384,
        n_layers=6,
        n_heads=6,
        d_ff=1536,
        norm="rms",
        positions="rope",
        bias=False,
    ),
    "GPT-2 small": ModelConfig(
        vocab_size=50257, max_len=1024, d_model=768, n_layers=12, n_heads=12, d_ff=3072
    ),
}


def budget(config: ModelConfig) -> dict[str, int]:
    d, n, bias = config.d_model, config.n_layers, int(config.bias)
    parts = {
        "token table": config.vocab_size * d,
        "positions": config.max_len * d if config.positions == "learned" else 0,
        "attention": n * 4 * (d * d + bias * d),
        "feed-forward": n * (2 * d * config.d_ff + bias * (config.d_ff + d)),
    }
    return {**parts, "norms": count_modern_parameters(config) - sum(parts.values())}


use_style()
figure, ax = plt.subplots(figsize=(6.2, 2.1))
left = [0.0] * len(SHAPES)
totals = [count_modern_parameters(config) for config in SHAPES.values()]
for part in budget(ModelConfig()):
    shares = [budget(c)[part] / total for c, total in zip(SHAPES.values(), totals, strict=True)]
    ax.barh(list(SHAPES), shares, left=left, label=part)
    left = [a + b for a, b in zip(left, shares, strict=True)]
for row, total in enumerate(totals):
    ax.text(1.01, row, f"{total:,}", va="center")
ax.invert_yaxis()
ax.set(xlabel="share of all parameters", xlim=(0, 1))
figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=5)
save(figure, __file__, "budget.svg")
