"""Every run against the baseline, on the same documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saelab.errors import UserError
from saelab.evaluation.compare import tested
from saelab.evaluation.compare.candidates import Candidate, Documents
from saelab.evaluation.compare.comparable import alike
from saelab.evaluation.compare.config import CompareConfig
from saelab.evaluation.compare.pairing import Difference, FromSums, Pairing
from saelab.evaluation.compare.report import PairPart


def pairing_of(candidates: Sequence[Candidate], config: CompareConfig) -> Pairing | None:
    """Of the fidelity suite; None where a report keeps no sums per document.

    Raises:
        UserError: the sums are of other documents, or belong to another report.
    """
    documents = {candidate.name: candidate.documents("fidelity") for candidate in candidates}
    return _pairing(documents, tested.shown, config)


def label_pairing_of(candidates: Sequence[Candidate], config: CompareConfig) -> Pairing | None:
    """Of the labels suite: the runs that have a report with sums, if all were made under the same conditions."""
    held = [candidate for candidate in candidates if "labels" in candidate.reports]
    if len(held) < 2 or not alike([candidate.reports["labels"].about for candidate in held]):
        return None
    documents = {candidate.name: candidate.documents("labels", tested.MARKS) for candidate in held}
    return _pairing(documents, tested.of_labels, config)


def pair_parts(
    fidelity: Pairing, labels: Pairing | None, candidates: Sequence[Candidate], baseline: Candidate
) -> list[PairPart]:
    """Every other run minus the baseline, in their order."""
    others = [candidate for candidate in candidates if candidate is not baseline]
    names = [other.name for other in others]
    found = [dict(of) for of in fidelity.differences([(name, baseline.name) for name in names])]
    for name, of in _of_labels(labels, names, baseline.name).items():
        found[names.index(name)] |= of
    parts = tested.rows(found, [other.place == baseline.place for other in others])
    theirs = baseline.fidelity.metrics.l0
    return [
        PairPart(
            run=other.name,
            baseline=baseline.name,
            l0_ratio=other.fidelity.metrics.l0 / theirs if theirs and other.fidelity.metrics.l0 is not None else None,
            differences=row,
        )
        for other, row in zip(others, parts, strict=True)
    ]


def _of_labels(labels: Pairing | None, names: Sequence[str], baseline: str) -> Mapping[str, Mapping[str, Difference]]:
    if labels is None or baseline not in labels.tables:
        return {}
    known = [name for name in names if name in labels.tables]
    return dict(zip(known, labels.differences([(name, baseline) for name in known]), strict=True))


def _pairing(documents: Mapping[str, Documents | None], numbers: FromSums, config: CompareConfig) -> Pairing | None:
    known = {name: of for name, of in documents.items() if of is not None}
    if len(known) < len(documents):
        return None
    first_name, first = next(iter(known.items()))
    for name, other in known.items():
        if (other.numbers, other.columns) != (first.numbers, first.columns):
            raise UserError(f"{first_name} and {name} were measured on different documents and can't be paired")
    tables = {name: of.table for name, of in known.items()}
    return Pairing(tables, first.columns, numbers, config.resamples, config.seed)
