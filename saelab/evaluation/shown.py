"""Progress of work that ranks share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from saelab.progress import Bar, Unseen, track
from saelab.ranks.axis import Axis


def shown(axis: Axis, total: int | None, label: str, unit: str = "tokens") -> AbstractContextManager[Bar]:
    """The first rank's bar, on which all ranks' work counts; the others have one that nobody looks at."""
    return track(total, label, unit) if axis.index == 0 else nullcontext(Unseen())
