"""All latents of a dictionary as a table that sorts and filters on the server: the browser gets one page of rows.

Sorting and paging are links, so the address holds what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import streamlit as st

from app import links, tokens
from app.notation import percent, short
from app.table import Column, Order, table
from app.workspace import Run
from saelab.features.index import FeatureIndex

ROWS = 25
FIND = "find"  # in the address, as are sort, order and page
NEVER = "never"
DENSITIES = {NEVER: 0.0, "0.001%": 1e-5, "0.01%": 1e-4, "0.1%": 1e-3, "1%": 1e-2, "10%": 0.1, "always": 1.0}


COLUMNS = (
    Column("latent", "Latent", "Number of the latent", is_number=False, largest_first=False),
    Column(
        "top_token_share", "Fires most on", "The token with the largest share of its summed activation", is_number=False
    ),
    Column("promoted", "Promotes", "The next token that it raises most", is_number=False, sortable=False),
    Column("density", "Density", "Share of tokens on which it fires"),
    Column("n_active", "Active tokens", "Tokens of the index on which it fires"),
    Column("max_activation", "Largest", "Largest activation in the index"),
    Column("mean_activation", "Mean", "Mean activation over the tokens on which it fires"),
    Column("f1", "Best label", "The ground-truth label that it detects best, and how well (F1)", is_number=False),
)


def latent_table(run: Run, index: FeatureIndex) -> None:
    """The section of the overview."""
    st.subheader("All latents")
    words, densities, download = st.columns([2, 2, 1], vertical_alignment="bottom", gap="large")
    find = words.text_input(
        "Fires on, promotes, or label",
        key=FIND,
        bind="query-params",
        placeholder="a word, as in: said",
        on_change=_first_page,
    )
    low, high = densities.select_slider(
        "Density", list(DENSITIES), value=(NEVER, "always"), key="density", bind="query-params", on_change=_first_page
    )
    query = {**st.query_params.to_dict(), "run": run.name}
    order = Order.from_address(query, COLUMNS, "density")
    found = select(index, order, find, (DENSITIES[low], DENSITIES[high]))
    download.download_button(
        "Download CSV",
        lambda: as_csv(found, index.vocabulary),
        f"{run.name.replace('/', '-')}-latents.csv",
        "text/csv",
        width="stretch",
        on_click="ignore",
        help=f"The {found.num_rows:,} latents found, all columns",
    )
    if not found.num_rows:
        st.caption("No latent matches. Shorten the word, or widen the densities.")
        return
    last = (found.num_rows - 1) // ROWS
    page = min(page_number(query), last)
    rows = [_row(row, index.vocabulary, run) for row in found.slice(page * ROWS, ROWS).to_pylist()]
    st.html(table(links.OVERVIEW, COLUMNS, rows, order, query) + _pager(found.num_rows, page, last, query))


def page_number(query: Mapping[str, str]) -> int:
    """The page of the table that the address asks for, 0 for anything but a number."""
    page = query.get("page", "0")
    return int(page) if page.isascii() and page.isdigit() and len(page) < 8 else 0


def _first_page() -> None:
    st.query_params.pop("page", None)


def select(index: FeatureIndex, order: Order, find: str, between: tuple[float, float]) -> pa.Table:
    """The latents that match, in the order asked for: the word is in the top token, the promoted token or the label."""
    bounds = {"density": between} if between != (0.0, 1.0) else None
    found = index.latents(sort=order.column, descending=order.descending, between=bounds)
    wanted = find.strip().lower()
    if not wanted:
        return found
    ids = [id_ for id_, text in enumerate(index.vocabulary) if wanted in text.lower()]
    matches = np.array([wanted in (label or "").lower() for label in found["label"].to_pylist()], dtype=bool)
    for column in ("top_token", "promoted"):
        matches |= np.isin(found[column].fill_null(-1).to_numpy(), ids)
    return found.filter(pa.array(matches))


def as_csv(found: pa.Table, vocabulary: list[str]) -> bytes:
    """The table as CSV with tokens spelled out."""
    import io

    import pyarrow.csv

    for column in ("top_token", "promoted"):
        texts = [None if id_ is None else vocabulary[id_] for id_ in found[column].to_pylist()]
        found = found.set_column(found.column_names.index(column), column, pa.array(texts, pa.string()))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(found, buffer)
    return buffer.getvalue()


def _row(row: dict[str, Any], vocabulary: list[str], run: Run) -> tuple[str, ...]:
    top, promoted, label = row["top_token"], row["promoted"], row["label"]
    return (
        links.anchor(str(row["latent"]), links.LATENT, run=run.name, latent=row["latent"]),
        f'{tokens.chip(vocabulary[top])} <span class="sl-faint">{percent(row["top_token_share"])}</span>'
        if top is not None
        else '<span class="sl-faint">never fired</span>',
        tokens.chip(vocabulary[promoted]) if promoted is not None else "",
        percent(row["density"]),
        short(row["n_active"]),
        short(row["max_activation"]),
        short(row["mean_activation"]),
        f'{escape(label)} <span class="sl-faint">{row["f1"]:.2f}</span>' if label is not None else "",
    )


def _pager(total: int, page: int, last: int, query: dict[str, str]) -> str:
    shown = f"{page * ROWS + 1:,}–{min((page + 1) * ROWS, total):,} of {total:,}"
    steps = [("← Back", page - 1, page > 0), ("More →", page + 1, page < last)]
    parts = [
        links.anchor(name, links.OVERVIEW, **{**query, "page": str(to)}) for name, to, possible in steps if possible
    ]
    return f'<div class="sl-pager"><span class="sl-faint">{shown}</span>{"".join(parts)}</div>'
