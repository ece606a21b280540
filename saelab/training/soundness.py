"""Whether every loss so far was a number: the device knows at once, the host when it asks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Trouble(NamedTuple):
    """The first loss that was not a number."""

    step: int
    loss: float


class Soundness:
    """Remembers the first loss that is NaN or infinite, without making the host wait for it.

    From then on `broken` is set, on the device, before the same step's gradients are used: whatever moves state looks
    at it and lets everything be as it was. So the check may come late and still finds the last good state.
    """

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((2,), -1.0, dtype=torch.float64, device=device)  # step, loss

    @property
    def broken(self) -> Bool[Tensor, ""]:
        """Whether some loss was not a number."""
        return self._first[0] >= 0

    def observe(self, loss: Float[Tensor, ""], step: int) -> None:
        """Take in the loss of a step."""
        now = torch.stack([torch.full_like(self._first[0], step), loss.double()])
        self._first = torch.where(~self.broken & ~loss.isfinite(), now, self._first)

    def trouble(self) -> Trouble | None:
        """What went wrong first, None if nothing did; waits for the device."""
        step, loss = self._first.tolist()
        return Trouble(int(step), loss) if step >= 0 else None
