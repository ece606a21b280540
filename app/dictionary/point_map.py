"""A map of very many points that is drawn at once: a component of our own, as a chart library takes a second for it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from jaxtyping import Float, UInt8
from streamlit.components.v2 import component
from streamlit.components.v2.types import ComponentRenderer

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Style:
    """How points of a kind are drawn: a CSS colour, radius in pixels, opacity."""

    colour: str
    radius: float = 3.0
    alpha: float = 1.0


@dataclass(frozen=True, eq=False)
class Points:
    """What is drawn, those behind first.

    Attributes:
        places: from the lower left.
        style: of each point, its number in `styles`.
        texts: shown under the pointer, as plain text.
        latents: sent when a point is clicked.
        ticks: of a scale of colours, from the first style (0) to the last (1); none where there is no scale.
        names: of a legend: a style's number and what it means.
        axes: titles of the horizontal and the vertical axis.
    """

    places: Float[np.ndarray, "n 2"]
    style: UInt8[np.ndarray, "n"]
    texts: list[str]
    latents: list[int]
    styles: list[Style]
    ticks: list[tuple[float, str]]
    names: list[tuple[int, str]]
    axes: tuple[str, str]

    def message(self) -> dict[str, Any]:
        """For the browser: places as 16-bit numbers, which are finer than its pixels."""
        low, span = self.places.min(0), np.ptp(self.places, axis=0)
        places = np.rint((self.places - low) / np.where(span > 0, span, 1) * 65535).astype("<u2")
        return {
            "x": _packed(places[:, 0]), "y": _packed(places[:, 1]), "colour": _packed(self.style),
            "texts": self.texts, "latents": self.latents, "styles": [vars(style) for style in self.styles],
            "ticks": self.ticks, "names": self.names, "axes": self.axes,
        }  # fmt: skip


def point_map(message: dict[str, Any], of: str, colouring: str, title: str) -> int | None:
    """Draw it; returns the latent that was just clicked.

    Args:
        message: `Points.message()`, kept by the caller.
        of: what places the points: while it stays the same, the map stays where the reader has zoomed to.
        colouring: what colours them.
        title: for those who can't see it.
    """
    data = {**message, "of": of, "colouring": colouring, "title": title}
    clicked = _component()(key="point_map", data=data, on_open_change=lambda: None).open
    return clicked if isinstance(clicked, int) else None


@st.cache_resource(show_spinner=False)
def _component() -> ComponentRenderer:
    """Registered once a server: a second registration of the same name is a warning."""
    html, css, js = (_HERE.joinpath(f"point_map.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return component("saelab_point_map", html=html, css=css, js=js)


def _packed(numbers: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode("ascii")
