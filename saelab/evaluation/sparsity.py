"""The sparsity suite: how firing is shared out among tokens and latents, and how much latents repeat each other."""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.zipf import ZipfFit, fit_zipf
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.found import Found
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import Pair, SparsityMetrics, SparsityReport, ZipfLaw
from saelab.evaluation.sums import FiringCounts

REDUNDANT_COSINE = 0.9
UNDERUSED_SHARE = 0.5  # of the density that the Zipf law expects of a latent's rank
_PAIRS = 10
_BINS_PER_DECADE = 4
_TILE_ELEMENTS = 2**24  # cosines held at once: 64 MB


class Sparsity:
    """Firing of one dictionary, batch by batch; needs activations only, not the model's output."""

    needs_output: ClassVar = False
    everywhere: ClassVar = False

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.firing = FiringCounts(subject.dictionary.d_sae)

    def measure(self, batch: CleanBatch) -> Found:
        """What one batch comes to."""
        return self.firing.of(batch.encoded(self.subject).codes)

    def take(self, found: Found) -> None:
        """Add what `measure` made of the next batch."""
        self.firing.take(found)

    def report(self, about: Provenance) -> SparsityReport:
        """All numbers of the text seen."""
        firing, d_sae = self.firing, self.firing.d_sae
        live = int((firing.fired > 0).sum())
        law = fit_zipf(firing.density) if live >= 4 else None
        starved = None if law is None else underused(firing.density, law)
        edges, histogram = density_histogram(firing.density, firing.n_tokens)
        nearest = nearest_latents(self.subject.dictionary.decoder_directions())
        return SparsityReport(
            about=about,
            metrics=SparsityMetrics(
                l0=firing.l0,
                l0_over_k=None if about.k is None else firing.l0 / about.k,
                l0_p5=firing.l0_quantile(0.05),
                l0_p50=firing.l0_quantile(0.5),
                l0_p95=firing.l0_quantile(0.95),
                l0_histogram=firing.l0_histogram.tolist(),
                density_edges=edges.tolist(),
                density_histogram=histogram.tolist(),
                dead=firing.dead,
                dead_fraction=firing.dead / d_sae,
                underused=starved,
                underused_fraction=None if starved is None else starved / d_sae,
                redundant_fraction=float((nearest.cosine > REDUNDANT_COSINE).double().mean()),
                nearest_cosine=float(nearest.cosine.double().mean()),
                closest_pairs=closest_pairs(nearest),
                zipf=None if law is None else ZipfLaw(**asdict(law)),
            ),
        )


def underused(density: Float[Tensor, "d_sae"], law: ZipfFit) -> int:
    """Live latents with less than half of the density that `law` expects of their rank."""
    live = density[density > 0].double().sort(descending=True).values
    expected = law.density(torch.arange(1, len(live) + 1))
    return int((live < UNDERUSED_SHARE * expected).sum())


def density_histogram(
    density: Float[Tensor, "d_sae"], n_tokens: int
) -> tuple[Float[Tensor, "bins+1"], Int[Tensor, "bins"]]:
    """Live latents by log10 density, from the whole decade at or below 1 / n_tokens up to 0 (density 1)."""
    decades = max(1, -int(torch.tensor(1 / max(n_tokens, 1), dtype=torch.float64).log10().floor()))
    bins = decades * _BINS_PER_DECADE
    edges = torch.linspace(-decades, 0, bins + 1, dtype=torch.float64)
    logs = density[density > 0].double().log10()
    place = (torch.bucketize(logs, edges, right=True) - 1).clamp(0, bins - 1)
    return edges, torch.bincount(place, minlength=bins)


class Nearest(NamedTuple):
    """For each latent, the other latent whose decoder direction is nearest, and the cosine to it."""

    latent: Int[Tensor, "d_sae"]
    cosine: Float[Tensor, "d_sae"]


def nearest_latents(directions: Float[Tensor, "d_sae d_in"]) -> Nearest:
    """Nearest neighbours by cosine, in tiles: the [d_sae, d_sae] table is never whole in memory.

    A direction of length zero has cosine 0 with everything. A lone latent is its own neighbour with cosine NaN.
    """
    unit = torch.nn.functional.normalize(directions.float(), dim=1)
    d_sae = len(unit)
    latents, cosines = [], []
    for rows in torch.arange(d_sae, device=unit.device).split(max(1, _TILE_ELEMENTS // d_sae)):
        tile = unit[rows] @ unit.T
        tile[torch.arange(len(rows)), rows] = -torch.inf
        best = tile.max(dim=1)
        latents.append(best.indices)
        cosines.append(torch.where(best.values.isfinite(), best.values, torch.nan))
    return Nearest(torch.cat(latents).cpu(), torch.cat(cosines).cpu())


def closest_pairs(nearest: Nearest) -> list[Pair]:
    """The pairs with the highest cosine, each once (lower number first)."""
    best: dict[tuple[int, int], float] = {}
    order = nearest.cosine.nan_to_num(nan=-2.0).argsort(descending=True, stable=True)
    for latent in order[: 2 * _PAIRS].tolist():
        other, cosine = int(nearest.latent[latent]), float(nearest.cosine[latent])
        if other != latent:
            best.setdefault((min(latent, other), max(latent, other)), cosine)
    return [Pair(latent=a, other=b, cosine=cosine) for (a, b), cosine in best.items()][:_PAIRS]
