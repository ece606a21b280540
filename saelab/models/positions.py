"""Which positions of a row: all from one on, or one alone."""

import re
from dataclasses import dataclass
from typing import Final

from saelab.errors import UserError

ALL: Final = "all"
_PATTERN: Final = re.compile(r"(-?\d+)(:?)")


@dataclass(frozen=True)
class Positions:
    """Positions from `first` on, or `first` alone. They count from 0 in each row.

    A negative `first` counts from the end of the prompt: -1 is its last token. The prompt is what generation was given
    to continue; of a row that is run as it is, the whole row. Positions that a row does not reach are none.
    """

    first: int = 0
    alone: bool = False

    @classmethod
    def parse(cls, text: str) -> "Positions | None":
        """Read "5:" (from 5 on), "5" (5 alone), "-1:" (from the prompt's last token on); None for "all".

        Raises:
            UserError: it is none of these.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None and text.strip() != ALL:
            raise UserError(f'positions {text!r} can\'t be read; write "all", "5:" (from 5 on), "5" (alone) or "-1:"')
        return None if match is None else cls(int(match[1]), alone=not match[2])

    def start_in(self, prompt: int) -> int:
        """`first`, counted from the start of the row.

        Args:
            prompt: tokens of the prompt.

        Raises:
            UserError: it lies before the prompt's first token.
        """
        start = self.first + prompt if self.first < 0 else self.first
        if start < 0:
            raise UserError(f"position {self.first} lies before the start of a prompt of {prompt} tokens")
        return start

    def within(self, offset: int, length: int, prompt: int) -> slice:
        """Those among the `length` positions from `offset` on, counted from there; perhaps none.

        Args:
            prompt: tokens of the prompt.
        """
        start = self.start_in(prompt)
        stop = start + 1 if self.alone else offset + length
        low, high = (min(max(at - offset, 0), length) for at in (start, stop))
        return slice(low, max(low, high))

    def __str__(self) -> str:
        return f"{self.first}" if self.alone else f"{self.first}:"
