"""What the model takes to come next, under two conditions: a pair of bars for each token."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from app.notation import percent
from app.tokens import alone


class Chance(NamedTuple):
    """A token, and its probability under the one condition and under the other."""

    token: str
    before: float
    after: float


def chances(items: Sequence[Chance], before: str, after: str) -> str:
    """Two bars a token, the first condition's above; `before` and `after` name the conditions."""
    full = max((max(item.before, item.after) for item in items), default=1.0) or 1.0
    rows = "".join(
        f'<div class="sl-label">{alone(item.token)}</div>'
        f"<div>{_bar('before', item.before / full)}{_bar('after', item.after / full)}</div>"
        f'<div class="sl-number">{_percent(item.before)}<br>{_percent(item.after)}</div>'
        for item in items
    )
    key = "".join(
        f'<span><i class="sl-swatch sl-{kind}"></i>{escape(name)}</span>'
        for kind, name in (("before", before), ("after", after))
    )
    return f'<div class="sl-key">{key}</div><div class="sl-bars sl-chances">{rows}</div>'


def _percent(share: float) -> str:
    return percent(share) if share >= 1e-4 else "&lt;0.01%"


def _bar(kind: str, share: float) -> str:
    return f'<div class="sl-bar sl-{kind}" style="width:{100 * min(max(share, 0), 1):.1f}%"></div>'
