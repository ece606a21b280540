"""The suites by name, and what each has in common: it sees clean batches and ends in a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from saelab.evaluation.batch import CleanBatch
    from saelab.evaluation.report import AnyReport, Provenance

Suite = Literal["fidelity", "sparsity"]


class Reader(Protocol):
    """One suite's running measurement of one dictionary."""

    needs_output: bool
    """Whether it needs the model's logits or is content with activations."""

    def see(self, batch: CleanBatch) -> None:
        """Take in one batch."""
        ...

    def report(self, about: Provenance) -> AnyReport:
        """The findings on all batches seen."""
        ...
