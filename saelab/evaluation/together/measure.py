"""The pass: every batch clean, with all reconstructions, with all ablations, and with each dictionary alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.evaluation.ahead import Unread, read_ahead
from saelab.evaluation.batch import CleanBatch, Comparison, Subject
from saelab.evaluation.bootstrap import Numbers, intervals
from saelab.evaluation.conditions import Extent, Text, provenance
from saelab.evaluation.found import Found, nested, part
from saelab.evaluation.measure import check_order
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import Interval, Intervals
from saelab.evaluation.shown import shown
from saelab.evaluation.substitution import output_numbers
from saelab.evaluation.sums import DocumentSums
from saelab.evaluation.together.chain import Chain, check_apart
from saelab.evaluation.together.report import Alone, AloneMetrics, TogetherMetrics, TogetherReport
from saelab.models import LanguageModel, Site
from saelab.ranks.mesh import Mesh
from saelab.ranks.turns import in_turns
from saelab.training.origin import check_fit

_OUTPUT = ("ce_sae", "ce_zero", "ce_mean", "kl")
_FIRING = ("fired", "fired_together")
_SET = "set"


class _Set:
    """Sums over documents for the whole set, and for each of its dictionaries.

    Args:
        means: what stands for "no information" where each of them writes, `[d_out]`.
    """

    def __init__(self, subjects: Sequence[Subject], means: Sequence[Float[Tensor, "d_out"]]) -> None:
        self.subjects, self.means = subjects, means
        self.writes: tuple[Site, ...] = tuple(site for subject in subjects for site in subject.writes)
        alone = [f"{name} {i}" for i in range(len(subjects)) for name in (*_OUTPUT, *_FIRING)]
        self.sums = DocumentSums(["tokens", "predictions", "ce_clean", *(f"{n} {_SET}" for n in _OUTPUT), *alone])

    def measure(self, batch: CleanBatch) -> dict[str, Tensor]:
        """What one batch comes to."""
        chain = Chain(batch, self.subjects)
        output = batch.compare_logits(chain.logits())
        scored = {"predictions": torch.ones_like(batch.clean_loss), "ce_clean": batch.clean_loss}
        scored |= _losses(_SET, batch, self.writes, output, torch.cat(list(self.means)))
        kept: dict[str, Tensor] = {"tokens": torch.ones(int(batch.keep.sum()))}
        for i, (subject, mean) in enumerate(zip(self.subjects, self.means, strict=True)):
            encoded = batch.encoded(subject)
            scored |= _losses(str(i), batch, subject.writes, batch.compare(subject.writes, encoded.x_hat), mean)
            kept |= {f"fired {i}": encoded.codes.positive().counts, f"fired_together {i}": chain.fired[subject]}
        return nested(
            {"scored": self.sums.of(batch.scored_documents, scored), "kept": self.sums.of(batch.kept_documents, kept)}
        )

    def take(self, found: Found) -> None:
        """Add what `measure` made of the next batch."""
        self.sums.take(part(found, "scored"))
        self.sums.take(part(found, "kept"))

    def numbers(self, sums: Mapping[str, Tensor]) -> Numbers:
        """Of the whole set."""
        alone = torch.stack([sums[f"ce_sae {i}"] - sums["ce_clean"] for i in range(len(self.subjects))])
        return {**_of(sums, _SET), "delta_ce_sum": alone.sum(0) / sums["predictions"]}

    def numbers_alone(self, i: int) -> Callable[[Mapping[str, Tensor]], Numbers]:
        """Of the i-th dictionary."""

        def of_sums(sums: Mapping[str, Tensor]) -> Numbers:
            l0, l0_together = (sums[f"{name} {i}"] / sums["tokens"] for name in _FIRING)
            return {**_of(sums, str(i)), "l0": l0, "l0_together": l0_together}

        return of_sums

    def report(self, abouts: tuple[Provenance, ...], resamples: int, seed: int) -> TogetherReport:
        """All numbers of the text taken in, with their intervals."""

        def found(numbers: Callable[[Mapping[str, Tensor]], Numbers]) -> tuple[dict[str, float], Intervals]:
            bounds = intervals(self.sums, numbers, resamples, seed)
            of = {name: Interval(low=low, high=high) for name, (low, high) in bounds.items()}
            values = {name: float(value) for name, value in numbers(self.sums.total()).items()}
            return values, Intervals(resamples=resamples, of=of)

        alone: list[Alone] = []
        for i, subject in enumerate(self.subjects):
            values, bounds = found(self.numbers_alone(i))
            alone.append(Alone(dictionary=subject.name, metrics=AloneMetrics(**values), intervals=bounds))
        values, bounds = found(self.numbers)
        return TogetherReport(about=abouts, metrics=TogetherMetrics(**values), intervals=bounds, alone=tuple(alone))


def _losses(
    name: str, batch: CleanBatch, sites: tuple[Site, ...], output: Comparison, mean: Float[Tensor, "d_out"]
) -> dict[str, Float[Tensor, "predictions"]]:
    """What is summed of one way of substituting."""
    return {
        f"ce_sae {name}": output.loss,
        f"ce_zero {name}": batch.ablated_loss(sites, "zero", torch.zeros_like(mean)),
        f"ce_mean {name}": batch.ablated_loss(sites, "mean", mean),
        f"kl {name}": output.kl,
    }


def _of(sums: Mapping[str, Tensor], name: str) -> Numbers:
    return output_numbers({**sums, **{column: sums[f"{column} {name}"] for column in _OUTPUT}})


@torch.no_grad()
def measure_together(
    model: LanguageModel,
    subjects: Sequence[Subject],
    rows: Iterable[TokenRows],
    *,
    mean_tokens: int = 10_000,
    resamples: int = 1000,
    seed: int = 0,
    text: Text | None = None,
    mesh: Mesh | None = None,
) -> TogetherReport:
    """Substitute all dictionaries in the same forward pass, and each alone, on one pass over `rows`.

    Args:
        rows, mesh: as `measured` takes them.

    Raises:
        UserError: two dictionaries write at one site, one does not fit the model, or no position is kept.
    """
    for subject in subjects:
        check_fit(subject.name, subject.dictionary.config, subject.site, model)
        check_order(subject)
    check_apart(subjects)
    text, mesh, started, extent = text or Text(), mesh or Mesh(), time.monotonic(), Extent()
    sites = sorted({site for subject in subjects for site in (subject.site, *subject.writes)})
    ahead = read_ahead(model, rows, sites, mean_tokens, text, mesh.world)
    ablations = [torch.cat([ahead.means[site].mean for site in subject.writes]) for subject in subjects]
    together = _Set(subjects, ablations)

    def work(unread: Unread) -> dict[str, Tensor]:
        batch = CleanBatch(model, unread(), sites, with_output=True)
        return nested({"extent": extent.measure(batch), "set": together.measure(batch)})

    with shown(mesh.world, text.positions, "evaluate together") as bar:
        for found in in_turns(mesh.world, ahead.rows, work, "measurements"):
            extent.take(part(found, "extent"))
            together.take(part(found, "set"))
            bar.advance(int(found["extent/positions"]))
    seconds, n = time.monotonic() - started, ahead.means[sites[0]].n

    def made() -> str:
        abouts = tuple(provenance(subject, model, extent, n, seed, seconds, text) for subject in subjects)
        return together.report(abouts, resamples, seed).model_dump_json()

    return TogetherReport.model_validate_json(mesh.ranks.share("report", made))
