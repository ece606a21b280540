"""All latents of a dictionary as a table that sorts and filters on the server: the browser gets one page of rows.

Sorting and paging are links and filters are bound to the address, so it holds what is shown.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import streamlit as st

from app import links, naming, reading, tokens
from app.dictionary.latent_filter import STATISTICS, WORKING, Bounds, Filter
from app.notation import percent, short
from app.part import follow, part
from app.table import Column, Order, Page, table
from app.workspace import Run
from saelab.features.index import FeatureIndex

PART: Final = "latents"
ROWS: Final = 25
FIND, WHICH = "find", "which"  # in the address, as are sort, order, page and the bounds of statistics
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


@part
def latent_table(run: Run) -> None:
    """The section of the overview."""
    follow(PART, ("sort", "order", "page"))
    index = reading.feature_index(run)
    st.subheader("All latents")
    report = reading.sparsity_if_readable(run)
    law = report.metrics.zipf if report is not None else None
    has_labels = bool(reading.labels(run))
    wanted, download = _controls(law is not None, has_labels)
    query = {**st.query_params.to_dict(), "run": run.name}
    columns = COLUMNS if has_labels else COLUMNS[:-1]
    order = Order.from_address(query, columns, "density")
    names = naming.names(run)
    found = wanted.select(index, order, law, names)
    with download:
        _downloads(found, index, run)
    if not found.num_rows:
        st.caption("No latent matches. Shorten the word, or widen the ranges.")
        return
    page = Page.from_address(query, found.num_rows, ROWS)
    shown = found.slice(page.rows.start, ROWS).to_pylist()
    rows = [_row(row, index, run, names)[: len(columns)] for row in shown]
    here = links.inside(PART)
    st.html(table(links.OVERVIEW, columns, rows, order, query, here) + page.pager(links.OVERVIEW, query, here))


def _controls(has_law: bool, has_labels: bool) -> tuple[Filter, Any]:
    """The filter, and the place for the downloads beside its controls."""
    words, densities, working, more, download = st.columns(
        [2, 1.8, 1.1, 1.25, 1.1], vertical_alignment="bottom", gap="medium"
    )
    title = "Fires on, promotes, label, or name" if has_labels else "Fires on, promotes, or name"
    find = words.text_input(
        title, key=FIND, bind="query-params", placeholder="a word, as in: said",
        on_change=_first_page,
    )  # fmt: skip
    low, high = densities.select_slider(
        "Density", list(DENSITIES), value=(NEVER, "always"), key="density", bind="query-params", on_change=_first_page
    )
    kinds = [kind for kind in WORKING if kind != "underused" or has_law]
    which = working.selectbox(
        "Which", kinds, format_func=WORKING.__getitem__, key=WHICH, bind="query-params", on_change=_first_page
    )
    bounds = {"density": (DENSITIES[low], DENSITIES[high])} if (low, high) != (NEVER, "always") else {}
    with more.popover("More filters", width="stretch"):
        bounds |= _bounds({name: title for name, title in STATISTICS.items() if name != "f1" or has_labels})
    return Filter(find, which, bounds), download


def _bounds(statistics: Mapping[str, str]) -> Bounds:
    """Ranges of statistics, {column: title}; an end that is left empty is open."""
    found: dict[str, tuple[float, float]] = {}
    for name, title in statistics.items():
        left, right = st.columns(2)
        low, high = (
            column.number_input(
                f"{title}, {end}", value=None, min_value=0.0, key=f"{end.replace(' ', '_')}_{name}",
                bind="query-params", on_change=_first_page,
            )
            for column, end in ((left, "at least"), (right, "at most"))
        )  # fmt: skip
        if low is not None or high is not None:
            found[name] = (low if low is not None else 0.0, high if high is not None else float("inf"))
    return found


def _first_page() -> None:
    st.query_params.pop("page", None)


def _downloads(found: pa.Table, index: FeatureIndex, run: Run) -> None:
    name = f"{run.name.replace('/', '-')}-latents"
    with st.popover("Download", width="stretch"):
        st.caption(f"The {found.num_rows:,} latents found, all columns")
        st.download_button(
            "CSV", lambda: as_csv(found, index.vocabulary), f"{name}.csv", "text/csv", width="stretch",
            on_click="ignore", key="download_csv",
        )  # fmt: skip
        st.download_button(
            "Parquet", lambda: as_parquet(found, index.vocabulary), f"{name}.parquet",
            "application/vnd.apache.parquet", width="stretch", on_click="ignore", key="download_parquet",
        )  # fmt: skip


def as_csv(found: pa.Table, vocabulary: list[str]) -> bytes:
    """The table as CSV with tokens spelled out."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(_spelled_out(found, vocabulary), buffer)
    return buffer.getvalue()


def as_parquet(found: pa.Table, vocabulary: list[str]) -> bytes:
    """The table as Parquet with tokens spelled out."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_spelled_out(found, vocabulary), buffer)
    return buffer.getvalue()


def _spelled_out(found: pa.Table, vocabulary: list[str]) -> pa.Table:
    for column in ("top_token", "promoted"):
        texts = [None if id_ is None else vocabulary[id_] for id_ in found[column].to_pylist()]
        found = found.set_column(found.column_names.index(column), column, pa.array(texts, pa.string()))
    return found


def _row(row: dict[str, Any], index: FeatureIndex, run: Run, names: Mapping[int, str]) -> tuple[str, ...]:
    top, promoted, label, vocabulary = row["top_token"], row["promoted"], row["label"], index.vocabulary
    return (
        _number(run, row["latent"], names.get(row["latent"]) or naming.meaning(index, row["latent"])),
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


def _number(run: Run, latent: int, name: str | None) -> str:
    given = f' <span class="sl-given">{escape(name)}</span>' if name is not None else ""
    return links.anchor(f"{latent}{given}", links.LATENT, run=run.name, latent=latent)
