"""The pass: every batch clean, with all reconstructions, with all ablations, and with each dictionary alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.evaluation.batch import CleanBatch, Comparison, Subject
from saelab.evaluation.bootstrap import Numbers, intervals
from saelab.evaluation.conditions import Extent, Text, provenance
from saelab.evaluation.measure import check_order, read_ahead
from saelab.evaluation.report import Interval, Intervals
from saelab.evaluation.substitution import output_numbers
from saelab.evaluation.sums import DocumentSums
from saelab.evaluation.together.chain import Chain, check_apart
from saelab.evaluation.together.report import Alone, AloneMetrics, TogetherMetrics, TogetherReport
from saelab.models import LanguageModel, Site
from saelab.progress import track
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

    def see(self, batch: CleanBatch) -> None:
        """Take in one batch."""
        chain = Chain(batch, self.subjects)
        output = batch.compare_logits(chain.logits())
        scored = {"predictions": torch.ones_like(batch.clean_loss), "ce_clean": batch.clean_loss}
        scored |= _losses(_SET, batch, self.writes, output, torch.cat(list(self.means)))
        kept: dict[str, Tensor] = {"tokens": torch.ones(int(batch.keep.sum()))}
        for i, (subject, mean) in enumerate(zip(self.subjects, self.means, strict=True)):
            encoded = batch.encoded(subject)
            scored |= _losses(str(i), batch, subject.writes, batch.compare(subject.writes, encoded.x_hat), mean)
            kept |= {f"fired {i}": encoded.codes.positive().counts, f"fired_together {i}": chain.fired[subject]}
        self.sums.add(batch.scored_documents, scored)
        self.sums.add(batch.kept_documents, kept)

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
) -> TogetherReport:
    """Substitute all dictionaries in the same forward pass, and each alone, on one pass over `rows`.

    Args:
        rows: as `measure` takes them.

    Raises:
        UserError: two dictionaries write at one site, one does not fit the model, or no position is kept.
    """
    for subject in subjects:
        check_fit(subject.name, subject.dictionary.config, subject.site, model)
        check_order(subject)
    check_apart(subjects)
    text, started, extent = text or Text(), time.monotonic(), Extent()
    sites = sorted({site for subject in subjects for site in (subject.site, *subject.writes)})
    rows, means = read_ahead(model, rows, sites, mean_tokens)
    ablations = [torch.cat([means[site].mean for site in subject.writes]) for subject in subjects]
    together = _Set(subjects, ablations)
    with track(text.positions, "evaluate together") as bar:
        for chunk in rows:
            batch = CleanBatch(model, chunk, sites, with_output=True)
            extent.add(batch)
            together.see(batch)
            bar.advance(batch.ids.numel())
    seconds, n = time.monotonic() - started, means[sites[0]].n
    abouts = tuple(provenance(subject, model, extent, n, seed, seconds, text) for subject in subjects)

    def found(numbers: Callable[[Mapping[str, Tensor]], Numbers]) -> tuple[dict[str, float], Intervals]:
        bounds = intervals(together.sums, numbers, resamples, seed)
        of = {name: Interval(low=low, high=high) for name, (low, high) in bounds.items()}
        values = {name: float(value) for name, value in numbers(together.sums.total()).items()}
        return values, Intervals(resamples=resamples, of=of)

    alone: list[Alone] = []
    for i, subject in enumerate(subjects):
        values, bounds = found(together.numbers_alone(i))
        alone.append(Alone(dictionary=subject.name, metrics=AloneMetrics(**values), intervals=bounds))
    values, bounds = found(together.numbers)
    return TogetherReport(about=abouts, metrics=TogetherMetrics(**values), intervals=bounds, alone=tuple(alone))
