"""Where in a language model: a layer, a kind of activation, and perhaps one head."""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final, Literal, get_args

from saelab.errors import UserError

SiteKind = Literal["resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out", "z", "q", "k", "v"]

KINDS: Final[tuple[SiteKind, ...]] = get_args(SiteKind)
HEAD_KINDS: Final[tuple[SiteKind, ...]] = ("q", "k", "v", "z")  # inside attention: one vector per head
UNKNOWN: Final = "unknown"
"""Site, or model, of a dictionary of another tool whose files name none."""
_FORWARD_ORDER: Final = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
_PATTERN: Final = re.compile(r"blocks\.(\d+)\.(attn\.)?(?:hook_)?([a-z_]+?)(?:\.head(\d+))?")


@total_ordering
@dataclass(frozen=True)
class Site:
    """One activation of a language model. Sites sort in the order in which a forward pass meets them.

    `q`, `k`, `v` (before any rotary embedding) and `z` (the heads' outputs before the output projection) hold one
    vector per head: without `head` the site is all heads side by side, with `head` it is that head's slice. Under
    grouped-query attention `k` and `v` have fewer heads.

    Raises:
        UserError: unknown kind, negative number, or a head where there are none.
    """

    layer: int
    kind: SiteKind
    head: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"site kind {self.kind!r} is unknown; it must be one of {', '.join(KINDS)}")
        if self.layer < 0 or (self.head is not None and self.head < 0):
            raise UserError(f"site {self} can't be: layers and heads count from 0")
        if self.head is not None and self.kind not in HEAD_KINDS:
            raise UserError(f"site {self} can't be: only {', '.join(HEAD_KINDS)} have heads")

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read "blocks.2.resid_post" or "blocks.7.attn.z.head3"; transformer-lens' "hook_" spelling is welcome too."""
        if text == UNKNOWN:
            raise UserError(
                "the files that this dictionary was read from do not say which site it belongs to; "
                "`saelab convert --site blocks.<layer>.<kind>` writes it again with one"
            )
        match = _PATTERN.fullmatch(text.strip())
        if match is None or match[3] not in KINDS or bool(match[2]) != (match[3] in HEAD_KINDS):
            raise UserError(
                f"site {text!r} can't be read; write blocks.<layer>.<kind> with kind resid_pre, resid_mid, resid_post, "
                "mlp_out or attn_out, or blocks.<layer>.attn.<q, k, v or z>, perhaps followed by .head<number>"
            )
        return cls(int(match[1]), match[3], None if match[4] is None else int(match[4]))  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        return self._spelled("")

    @property
    def hook_name(self) -> str:
        """The name of transformer-lens' hook point that carries this site (all heads)."""
        return Site(self.layer, self.kind)._spelled("hook_")

    def __lt__(self, other: "Site") -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[int, int, int]:
        return self.layer, _FORWARD_ORDER.index(self.kind), -1 if self.head is None else self.head

    def _spelled(self, prefix: str) -> str:
        inside = "attn." if self.kind in HEAD_KINDS else ""
        head = "" if self.head is None else f".head{self.head}"
        return f"blocks.{self.layer}.{inside}{prefix}{self.kind}{head}"
