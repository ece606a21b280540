"""What every suite has in common: it measures clean batches, adds up what they came to, and ends in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from saelab.evaluation.batch import CleanBatch
from saelab.evaluation.found import Found
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.reports import AnyReport


class Summed(Protocol):
    """Something that is learnt of the text batch by batch, in two steps, so that processes can share the first one."""

    everywhere: ClassVar[bool]
    """Whether all ranks take in all batches, for work after the pass that they share; else the first one alone does."""

    def measure(self, batch: CleanBatch) -> Found:
        """What one batch comes to, whatever was measured before: the work."""
        ...

    def take(self, found: Found) -> None:
        """Add that, batch after batch in the order of the text: next to no work."""
        ...


class Reader(Summed, Protocol):
    """One suite's running measurement of one dictionary."""

    needs_output: ClassVar[bool]
    """Whether it needs the model's logits or is content with activations."""

    def report(self, about: Provenance) -> AnyReport:
        """The findings on all batches taken in; called by all ranks where `everywhere`."""
        ...


@runtime_checkable
class Documented(Protocol):
    """A reader that can also say what its numbers are sums of, so that two dictionaries can be compared in pairs."""

    def documents(self) -> Mapping[str, Tensor]:
        """`document` (numbers, rising), and tensors with a row for each document."""
        ...
