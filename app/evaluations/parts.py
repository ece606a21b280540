"""Parts of a report (saelab/evaluation/page.py) on a page of the app: the same that its HTML page shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

import streamlit as st

from app import figures
from app.notation import plain
from saelab.evaluation.page import Cell, Figure, Grid, Heading, Mark, Paragraph, Part, Table

COLUMNS = 3  # of small figures
NUMBER = re.compile(r"[-−+≥≤±]?\s*[\d.,e+-]+\s*%?|–|")
LONG = 40  # letters
MARKS: dict[Mark, str] = {"": "", "good": "sl-good", "bad": "sl-bad", "faint": "sl-faint"}


def show(parts: Iterable[Part], key: str) -> None:
    """All of them, one below the other; `key` tells the figures of one list from those of another on the page."""
    for number, part in enumerate(parts):
        match part:
            case Heading():
                st.subheader(plain(part.text), anchor=False) if part.level == 2 else st.markdown(
                    f"**{plain(part.text)}**"
                )
            case Paragraph():
                st.html(f'<p class="sl-said {MARKS[part.mark]}">{escape(part.text)}</p>')
            case Table():
                st.html(table(part))
            case Figure():
                _figure(part, f"{key}-{number}")
            case Grid():
                _grid(part.figures, f"{key}-{number}")


def _grid(parts: Sequence[Figure], key: str) -> None:
    width = min(COLUMNS, len(parts))
    for start in range(0, len(parts), width):
        columns = st.columns(width)
        for place, part in enumerate(parts[start : start + width]):
            with columns[place]:
                _figure(part, f"{key}-{start + place}")


def _figure(part: Figure, key: str) -> None:
    st.plotly_chart(part.figure, config=figures.CHART, key=key)
    if part.caption:
        st.caption(plain(part.caption))


def table(part: Table) -> str:
    """As HTML in the app's style; every text is escaped."""
    rows = list(part.cells())
    kinds = [_kind([row[n].text for row in rows if len(row) > n]) for n in range(len(part.head))]
    head = "".join(
        f'<th{_class(kind)} scope="col">{escape(name)}</th>' for name, kind in zip(part.head, kinds, strict=True)
    )
    body = "".join(_row(row, kinds) for row in rows)
    title = f'<h4 class="sl-title">{escape(part.title)}</h4>' if part.title else ""
    notes = "".join(f'<p class="sl-said sl-bad">{escape(line)}</p>' for line in part.warnings)
    notes += "".join(f'<p class="sl-said sl-faint">{escape(line)}</p>' for line in part.caption)
    return (
        f'{title}<div class="sl-scroll"><table class="sl-table sl-report"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{notes}"
    )


def _row(row: Sequence[Cell], kinds: Sequence[str]) -> str:
    if len(row) == 1 and len(kinds) > 1:  # a divider
        return f'<tr><td class="sl-divider {MARKS[row[0].mark]}" colspan="{len(kinds)}">{escape(row[0].text)}</td></tr>'
    cells = (f"<td{_class(kind, MARKS[cell.mark])}>{_cell(cell)}</td>" for cell, kind in zip(row, kinds, strict=False))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(cell: Cell) -> str:
    faint = f' <span class="sl-faint">{escape(cell.faint)}</span>' if cell.faint else ""
    return escape(cell.text) + faint


def _kind(texts: Sequence[str]) -> str:
    """The class of a column: numbers stand to the right, long texts wrap."""
    if all(NUMBER.fullmatch(text) for text in texts):
        return "sl-number"
    return "sl-wraps" if any(len(text) > LONG for text in texts) else ""


def _class(*names: str) -> str:
    known = " ".join(filter(None, names))
    return f' class="{known}"' if known else ""
