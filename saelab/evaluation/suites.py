"""What every suite has in common: it sees clean batches and ends in a report."""

from __future__ import annotations

from typing import Protocol

from saelab.evaluation.batch import CleanBatch
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.reports import AnyReport


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
