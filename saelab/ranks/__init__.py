"""What torchrun says about this process, and what the processes of one job tell one another.

`joined()` gives a stage its `Ranks`: one of one without torchrun, at no cost. No tensors travel here: the store that
torchrun keeps carries counters and short texts, so that a rank that dies is found, named and outlived.
"""

from saelab.ranks.joining import joined
from saelab.ranks.ranks import LostRankError, Ranks, SaidElsewhereError

__all__ = ["LostRankError", "Ranks", "SaidElsewhereError", "joined"]
