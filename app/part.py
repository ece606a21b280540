"""Parts of a page that are drawn again alone when something in them changes, while the rest of the page stays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec

import streamlit as st

from app import links, problems

Given = ParamSpec("Given")


def part(draw: Callable[Given, None]) -> Callable[Given, None]:
    """Make a function that draws something into a part of the page.

    What it is given lives as long as the visitor's page, so give it a run and let it open the index, which may be
    another one by the next time.
    """

    @functools.wraps(draw)
    def alone(*args: Given.args, **kwargs: Given.kwargs) -> None:
        with problems.told(draw.__name__.replace("_", " ")):  # it runs by itself, outside of what the frame catches
            draw(*args, **kwargs)

    return st.fragment(alone)


def follow(name: str, parameters: Sequence[str]) -> None:
    """Inside a part, before all else: obey its own links (`links.anchor(..., links.inside(name), ...)`).

    Args:
        parameters: of the address, that such a link sets; what other parts of the page have put there stays.
    """
    clicked = links.followed_inside(name)
    if clicked is None:
        return
    for parameter in parameters:
        if parameter in clicked:
            st.query_params[parameter] = clicked[parameter]
        else:
            st.query_params.pop(parameter, None)
