"""Two toy models in which occlusion and over-splitting happen, and nothing else does.

Source: arXiv 2405.08366 has a toy model of each; these constructions are our own reading of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saelab.activations.source import Origin
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.evaluation.ioi.task import Prompts

ORIGIN = Origin("toy", None, "", "", "blocks.0.resid_post", (), CorpusConfig(), TokenPolicy())  # of no model
"""What a dictionary trained on a toy says of its origin."""


class Toy(NamedTuple):
    """Activations, and the attributes that they were made of."""

    x: Float[Tensor, "n d"]
    prompts: Prompts


def unwritten_prompts(n: int, n_names: int, generator: torch.Generator) -> Prompts:
    """Attributes without text: IO, S ≠ IO and Pos uniform and independent."""

    def drawn(choices: int) -> Tensor:
        return torch.randint(choices, (n,), generator=generator)

    io = drawn(n_names)
    nothing = torch.zeros(n, dtype=torch.int64)
    return Prompts(
        ids=nothing[:, None], at={}, io=io, s=(io + 1 + drawn(n_names - 1)) % n_names, pos=drawn(2), template=nothing,
        names=tuple(f"name {i}" for i in range(n_names)), name_ids=torch.arange(n_names),
        gender=torch.arange(n_names) % 2,
    )  # fmt: skip


def occluded(
    n: int = 8192, n_names: int = 24, d: int = 16, ratio: float = 0.25, noise: float = 0.02, seed: int = 0
) -> Toy:
    """`a = u_IO + ratio · u_S + noise`, random unit vectors: more of them than dimensions.

    Where `ratio` is below the interference of the vectors (about `1/√d`), an encoder can't tell a small u_S from what
    large u_IO leave in its direction.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = unwritten_prompts(n, n_names, generator)
    io, s = (normalize(torch.randn(n_names, d, generator=generator), dim=1) for _ in range(2))
    x = io[prompts.io] + ratio * s[prompts.s] + noise * torch.randn(n, d, generator=generator) / d**0.5
    return Toy(x, prompts)


def split(n: int = 8192, d: int = 16, noise: float = 1.0, seed: int = 0) -> Toy:
    """`a = ±w + noise`: a unit vector w with the sign of Pos, in a cloud of Gaussian noise of norm about `noise`.

    Two latents, w and -w, say all there is to say; a dictionary with more can reconstruct parts of the noise by having
    many latents around each of the two.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = unwritten_prompts(n, 8, generator)
    w = normalize(torch.randn(d, generator=generator), dim=0)
    sign = 1 - 2 * prompts.pos[:, None]
    return Toy(sign * w + noise * torch.randn(n, d, generator=generator) / d**0.5, prompts)
