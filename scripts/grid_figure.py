"""Draw docs/figures/grid.svg: which matches of one small batch each point of the grid keeps, by saelab's own code.

python scripts/grid_figure.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelab.dictionaries import affinity
from saelab.dictionaries.allocation import FeatureAllocation, MutualAllocation, TokenAllocation, zipf_shares
from saelab.dictionaries.config import ActivationAffinity, GradientAffinity
from saelab.disk import write_text
from saelab.kernels.backend import choose

TOKENS, LATENTS, WIDTH, K = 12, 18, 8, 3
CELL, GAP, BAR, LEFT, TOP = 15, 70, 34, 150, 70
KEPT, INK, FAINT = "#d1495b", "#22313f", "#7a8794"
OUT = Path(__file__).resolve().parent.parent / "docs" / "figures" / "grid.svg"


def scores_of_a_batch() -> dict[str, Float[Tensor, "tokens latents"]]:
    """Affinities of a seeded batch: some tokens are louder, some latents more common, as in real activations."""
    generator = torch.Generator().manual_seed(7)
    W_dec = torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH, generator=generator), dim=1)
    loud = torch.linspace(0.6, 1.7, TOKENS)[torch.randperm(TOKENS, generator=generator)]
    common = torch.linspace(0.9, -0.5, LATENTS)
    z = (torch.randn(TOKENS, LATENTS, generator=generator) + common) * loud[:, None]
    gradient = torch.randn(TOKENS, WIDTH, generator=generator)
    gradient[:3] *= 3  # the loss cares about the first tokens
    return {
        "activation   z": affinity.scores(ActivationAffinity(), z, None, W_dec),
        "gradient   z + β z |g|": affinity.scores(GradientAffinity(beta=1.5), z, gradient, W_dec),
    }


def kept(scores: Float[Tensor, "tokens latents"]) -> dict[str, Bool[Tensor, "tokens latents"]]:
    """What each allocation keeps of a budget of K matches per token."""
    allocations = {
        "token choice": TokenAllocation(),
        "mutual choice": MutualAllocation(),
        "feature choice": FeatureAllocation(zipf_shares((scores > 0).double().mean(0), 0.6, 1.0)),
    }
    backend = choose("reference")
    masks = {}
    for name, allocation in allocations.items():
        codes = allocation.select(scores, K, backend)
        masks[name] = codes.with_values(torch.ones_like(codes.values)).to_dense().bool()
    return masks


def panel(x: float, y: float, scores: Tensor, mask: Tensor) -> list[str]:
    """One table of matches, with the number kept of every token (right) and every latent (below)."""
    shade = (scores - scores.min()) / (scores.max() - scores.min())
    parts = []
    for token in range(TOKENS):
        for latent in range(LATENTS):
            fill = KEPT if mask[token, latent] else INK
            opacity = 1.0 if mask[token, latent] else 0.03 + 0.30 * float(shade[token, latent])
            parts.append(
                f'<rect x="{x + latent * CELL:g}" y="{y + token * CELL:g}" width="{CELL - 1}" height="{CELL - 1}" '
                f'rx="2" fill="{fill}" fill-opacity="{opacity:.2f}"/>'
            )
    unit = BAR / max(int(mask.sum(1).max()), int(mask.sum(0).max()))
    right, below = x + LATENTS * CELL + 4, y + TOKENS * CELL + 4
    for token, count in enumerate(mask.sum(1).tolist()):
        parts.append(_bar(right, y + token * CELL + 3, max(count * unit, 0.5), CELL - 7))
    for latent, count in enumerate(mask.sum(0).tolist()):
        parts.append(_bar(x + latent * CELL + 3, below, CELL - 7, max(count * unit, 0.5)))
    return parts


def _bar(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:.1f}" fill="{FAINT}"/>'


def text(x: float, y: float, words: str, size: int = 14, anchor: str = "middle", ink: str = INK) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{ink}">{words}</text>'


def figure() -> str:
    """The whole picture."""
    constraint = {
        "token choice": ("every row keeps k", "topk", "gradient"),
        "mutual choice": ("the table keeps k·B", "mutual-choice", "gradient × mutual"),
        "feature choice": ("column i keeps mᵢ", "feature-choice", "gradient × feature"),
    }
    step_x, step_y = LATENTS * CELL + BAR + GAP, TOKENS * CELL + BAR + GAP
    parts = [text(LEFT - 20, TOP - 34, "tokens ↓  latents →", 12, "end", FAINT)]
    for column, (name, scores) in enumerate(scores_of_a_batch().items()):
        x = LEFT + column * step_x
        parts.append(text(x + LATENTS * CELL / 2, TOP - 34, name, 16))
        for row, (allocation, mask) in enumerate(kept(scores).items()):
            y = TOP + row * step_y
            rule, *presets = constraint[allocation]
            parts += panel(x, y, scores, mask)
            parts.append(text(x + LATENTS * CELL / 2, y - 8, presets[column], 13, ink=KEPT))
            if column == 0:
                parts.append(text(LEFT - 20, y + TOKENS * CELL / 2 - 6, allocation, 15, "end"))
                parts.append(text(LEFT - 20, y + TOKENS * CELL / 2 + 14, rule, 12, "end", FAINT))
    width, height = LEFT + 2 * step_x - GAP + 20, TOP + 3 * step_y - GAP + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif"><rect width="{width}" height="{height}" fill="white"/>'
        + "".join(f"\n{part}" for part in parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    write_text(OUT, figure())
    print(f"wrote {OUT.name}")
