"""Parts of a page that are drawn again alone."""

from __future__ import annotations

import sys

import pytest
from streamlit.testing.v1 import AppTest


def _page() -> None:
    import streamlit as st

    from app.part import follow, part
    from saelab.errors import UserError

    @part
    def good(word: str) -> None:
        follow("good", ("sort",))
        st.button("again", key="again")
        st.caption(f"{word} {st.query_params.get('sort')}")

    @part
    def bad_one() -> None:
        raise UserError("the <file> is torn")

    @part
    def worse() -> None:
        raise ValueError("a secret")

    good("shown")
    bad_one()
    worse()
    st.caption("the rest")


def test_a_part_that_fails_says_so_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # which Streamlit replaces
    page = AppTest.from_function(_page, default_timeout=60)
    page.query_params["sort"] = "f1"
    page.run()
    assert [caption.value for caption in page.caption] == ["shown f1", "the rest"]
    shown = "".join(str(html.proto.body) for html in page.get("html"))
    assert "the &lt;file&gt; is torn" in shown
    assert "This page failed" in shown
    assert "a secret" not in shown
    page.button(key="again").click().run()
    assert page.query_params["sort"] == "f1"  # nothing was followed, so nothing changed
