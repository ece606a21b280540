"""What every suite has in common: it sees clean batches and ends in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

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


@runtime_checkable
class Documented(Protocol):
    """A reader that can also say what its numbers are sums of, so that two dictionaries can be compared in pairs."""

    def documents(self) -> Mapping[str, Tensor]:
        """`document` (numbers, rising), and tensors with a row for each document."""
        ...
