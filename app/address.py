"""Controls whose value stands in the address: what the address says they show, also after a link has changed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st


def text(
    label: str, name: str, default: str = "", *, forgets: Sequence[str] = (), lines: int = 1, **options: Any
) -> str:
    """A text field; another text takes the parameters of `forgets` out of the address, which meant the old one."""
    key = _show(name, st.query_params.get(name, default))
    field = st.text_input if lines == 1 else st.text_area
    height = {} if lines == 1 else {"height": 22 + 34 * lines}
    return field(label, key=key, on_change=_keep, args=(name, default, tuple(forgets)), **height, **options) or ""


def choice(label: str, name: str, options: Mapping[str, str], default: str, **more: Any) -> str:
    """One of a few, side by side: {what the address says: what is shown}."""
    named = st.query_params.get(name)
    key = _show(name, named if named in options else default)
    chosen = st.segmented_control(
        label, list(options), format_func=options.__getitem__, required=True, key=key, on_change=_keep,
        args=(name, default), **more,
    )  # fmt: skip
    return chosen or default


def whole(label: str, name: str, default: int, low: int, high: int, **options: Any) -> int:
    """A whole number from `low` to `high`; the address may say any, what it can't mean is `default`."""
    value = index(st.query_params.get(name), high)
    key = _show(name, default if value is None or value < low else value)
    return int(
        st.number_input(label, low, high, step=1, key=key, on_change=_keep, args=(name, default), **options) or default
    )


def index(text: str | None, last: int) -> int | None:
    """The number from 0 to `last` that a text is; None if it is none."""
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if text is not None and is_number and int(text) <= last else None


def _show(name: str, value: Any) -> str:
    """Key of a control that is about to be drawn with this value."""
    key = f"address_{name}"
    st.session_state[key] = value
    return key


def _keep(name: str, default: Any, forgets: Sequence[str] = ()) -> None:
    """The control was changed: the address says so. What is the default anyway is left out of it."""
    value = st.session_state[f"address_{name}"]
    if value is None or value == default:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)
    for other in forgets:
        st.query_params.pop(other, None)
