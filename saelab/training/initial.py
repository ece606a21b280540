"""Where training starts: scale of the inputs, centre of the data, tied weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saelab.activations.batch import ActivationBatch
from saelab.errors import UserError
from saelab.ranks.axis import Axis

BEGINNING = "beginning"  # what travels before the first step
BLOCK = 2**14  # rows of random weights drawn at a time; a multiple of 16


@dataclass
class Weights:
    """The trained tensors; they change in place, step by step."""

    W_enc: Float[Tensor, "F d"]
    W_dec: Float[Tensor, "F d_out"]
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "d_out"]
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What the gate trains beside them (thresholds, gains)."""
    input_centre: Float[Tensor, "d"] | None = None
    """Subtracted from inputs where `b_dec` can't be, since it belongs to another site; fixed."""

    @property
    def is_tied_at_centre(self) -> bool:
        """Whether inputs are centred by `b_dec`, which then learns from both its places."""
        return self.input_centre is None

    @property
    def centre(self) -> Float[Tensor, "d"]:
        return self.b_dec if self.input_centre is None else self.input_centre

    def agree(self, ranks: Axis) -> None:
        """Take what all ranks have alike from the first: machines differ in how they round long sums."""
        for centre in (self.b_dec, self.input_centre):
            if centre is not None:
                ranks.broadcast(centre, 0, BEGINNING)

    def named(self) -> dict[str, Tensor]:
        """What the optimiser trains."""
        return {"W_enc": self.W_enc, "W_dec": self.W_dec, "b_enc": self.b_enc, "b_dec": self.b_dec, **self.extra}


@dataclass(frozen=True)
class Scaling:
    """What activations are multiplied by, so that E|x|² = d at the input and at each target (METHODS: Scaling)."""

    input: float
    targets: tuple[float, ...] = ()
    widths: tuple[int, ...] = ()
    """Numbers per token of each target."""

    @classmethod
    def of(cls, sample: ActivationBatch, widths: tuple[int, ...] = ()) -> Scaling:
        """Estimated on a sample; `widths` of the target sites, none when the input is its own target."""
        parts = sample.target.split(widths, dim=1) if widths else ()
        return cls(input_scale(sample.x), tuple(input_scale(part) for part in parts), widths)

    def agreed(self, ranks: Axis) -> Scaling:
        """What the first of several ranks found."""
        if ranks.size == 1:
            return self
        scales = torch.tensor([self.input, *self.targets], dtype=torch.float64)
        first, *targets = ranks.broadcast(scales, 0, BEGINNING).tolist()
        return Scaling(first, tuple(targets), self.widths)

    def apply(self, batch: ActivationBatch) -> tuple[Float[Tensor, "B d"], Float[Tensor, "B d_out"]]:
        """Scaled input and target: one and the same tensor where the input is its own target."""
        x = batch.x * self.input
        if not self.targets:
            return x, x
        parts = zip(batch.target.split(self.widths, dim=1), self.targets, strict=True)
        return x, torch.cat([part * scale for part, scale in parts], dim=1)

    def state(self) -> dict[str, Tensor]:
        """As tensors, for checkpoints."""
        return {
            "scaling.input": torch.tensor(self.input, dtype=torch.float64),
            "scaling.targets": torch.tensor(self.targets, dtype=torch.float64),
            "scaling.widths": torch.tensor(self.widths, dtype=torch.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Scaling:
        widths = tuple(state["scaling.widths"].tolist())
        return cls(float(state["scaling.input"]), tuple(state["scaling.targets"].tolist()), widths)


def input_scale(sample: Float[Tensor, "n d"]) -> float:
    """The one number by which inputs are multiplied so that E|x|² = d (METHODS: Scaling).

    Raises:
        UserError: the sample is all zeros or not finite, so there is nothing to learn.
    """
    mean_square = float(sample.double().square().sum(1).mean())
    if not 0 < mean_square < float("inf"):
        raise UserError(f"the activations have mean squared norm {mean_square}; they must be finite and not all zero")
    return (sample.shape[1] / mean_square) ** 0.5


def initial_weights(
    x: Float[Tensor, "n d"],
    d_sae: int,
    seed: int,
    target: Float[Tensor, "n d_out"] | None = None,
    latents: range | None = None,
) -> Weights:
    """Unit-norm random decoder rows, `W_enc = W_dec` (tied at the start only), `b_dec` = geometric median.

    Source: arXiv 2406.04093, appendix A. A transcoder's encoder has unit-norm random rows of its own, and its inputs
    are centred on their own geometric median (our own: there is nothing to tie).

    Args:
        x: a sample of scaled activations.
        target: what is to be reconstructed, where that is something else.
        latents: consecutive ones whose weights are wanted, of all `d_sae`; left out, all.
    """
    generator = torch.Generator().manual_seed(seed)
    own = range(d_sae) if latents is None else latents

    def directions(like: Tensor) -> Tensor:
        return random_directions(d_sae, like.shape[1], generator, own).to(like)

    b_enc = x.new_zeros(len(own))
    if target is None:
        W_dec = directions(x)
        return Weights(W_dec.clone(), W_dec, b_enc, geometric_median(x))
    W_dec, W_enc = directions(target), directions(x)
    return Weights(W_enc, W_dec, b_enc, geometric_median(target), input_centre=geometric_median(x))


def random_directions(
    rows: int, width: int, generator: torch.Generator, wanted: range, block: int = BLOCK
) -> Float[Tensor, "n width"]:
    """Some rows of a table of random unit vectors: those that anybody gets who asks for the whole table.

    Args:
        block: rows that are drawn at a time. Torch draws numbers in sixteens, and begins anew with its last sixteen
            where they don't come out even: blocks of a multiple of 16 rows give the numbers of one draw.
    """
    borders = [*range(0, max(rows - block, 0) + 1, block), rows]  # the last block is a whole one and the rest
    found = torch.empty(len(wanted), width)
    for low, high in pairwise(borders):
        drawn = torch.randn(high - low, width, generator=generator)
        first, stop = max(low, wanted.start), min(high, wanted.stop)
        if first < stop:
            unit = normalize(drawn[first - low : stop - low], dim=1)
            found[first - wanted.start : stop - wanted.start] = unit
    return found


def geometric_median(points: Float[Tensor, "n d"], steps: int = 50, tolerance: float = 1e-5) -> Float[Tensor, "d"]:
    """The point with the least summed distance to `points`, by Weiszfeld's iteration.

    It stands where the mean would, but a few huge activations can't drag it away.
    """
    median = points.mean(0)
    for _ in range(steps):
        weights = 1 / (points - median).norm(dim=1).clamp(min=1e-6)
        moved = (weights[:, None] * points).sum(0) / weights.sum()
        if (moved - median).norm() <= tolerance * moved.norm():
            return moved
        median = moved
    return median
