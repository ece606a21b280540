"""A report as parts (headings, tables, figures) that any reader can lay out, and as one self-contained HTML page.

All text is plain: whoever shows it escapes it. Figures set no theme: the page picks light or dark as the reader has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final, Literal

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from saelab.disk import write_text

Mark = Literal["", "good", "bad", "faint"]


@dataclass(frozen=True)
class Heading:
    """Opens a section (level 2) or a part of one (level 3)."""

    text: str
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Cell:
    """What stands in a table: the text, what stands behind it in grey (an interval), and how it is to be taken."""

    text: str
    faint: str = ""
    mark: Mark = ""

    @property
    def plain(self) -> str:
        return f"{self.text} {self.faint}" if self.faint else self.text


@dataclass(frozen=True)
class Table:
    """Columns named by `head`; the first names the row. A row of one cell runs across the whole table, as a divider."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    title: str = ""
    caption: Sequence[str] = ()
    """Sentences below it: on what the numbers were measured."""
    warnings: Sequence[str] = ()
    """What the reader has to know before believing them."""
    words: Sequence[int] = ()
    """Columns of words, flush left as the first one is; the others are numbers, flush right."""

    def cells(self) -> Iterator[list[Cell]]:
        """The rows, every cell a `Cell`."""
        for row in self.rows:
            yield [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]


@dataclass(frozen=True)
class Figure:
    """A plotly figure and what it shows; its title is its own."""

    figure: go.Figure
    caption: str = ""


@dataclass(frozen=True)
class Grid:
    """Small figures, side by side where there is room."""

    figures: Sequence[Figure]


Part = Heading | Paragraph | Table | Figure | Grid

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b2430; --faint: #5b6675; --line: #dfe3e8; --ground: #ffffff;
  --good: #00705a; --bad: #b33c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --faint: #9aa6b4; --line: #343d49; --ground: #14181e;
  --good: #3ccfa8; --bad: #ff9a5c; } }
@media print { :root { --ink: #000; --faint: #444; --line: #bbb; --ground: #fff; --good: #00705a; --bad: #b33c00; }
  nav { display: none; } .wide { overflow: visible; } table { font-size: 11px; } figure, tr { break-inside: avoid; } }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 74rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.25; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); } h3 { margin-top: 1.8rem; }
nav { columns: 16rem; margin: 1rem 0; } nav a { color: inherit; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: 14px; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .22rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: baseline; }
th { font-weight: 600; } tbody th { font-weight: 400; min-width: 8.5rem; } th:first-child, .words { text-align: left; }
thead th { border-bottom-width: 2px; vertical-align: bottom; } th.across { padding-top: .8rem; font-weight: 600; }
p, .notes { max-width: 56rem; } .notes, figcaption { color: var(--faint); font-size: 13.5px; }
.notes p { margin: .3rem 0; } figure { margin: 1.2rem 0; } figcaption { max-width: 56rem; }
td span.faint, th span.faint { white-space: nowrap; }
.faint { color: var(--faint); } .good { color: var(--good); } .bad { color: var(--bad); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0 1rem; }
"""

# Draws each figure below its own data, in the reader's colours; printing is always on white.
_SCRIPT: Final = """
const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(isDark) {
  const [ink, line, ground] = isDark ? ["#e4e8ee", "#343d49", "#14181e"] : ["#1b2430", "#dfe3e8", "#ffffff"];
  const axis = {gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, ticks: "outside",
    tickcolor: line, title: {standoff: 10}};
  return {layout: {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
    font: {color: ink, family: "system-ui, sans-serif", size: 12}, annotationdefaults: {font: {color: ink}},
    hoverlabel: {bgcolor: ground, bordercolor: line, font: {color: ink}}, title: {x: 0, xanchor: "left"}}};
}
function draw(isDark) {
  for (const data of document.querySelectorAll("script.figure")) {
    const figure = JSON.parse(data.textContent), place = data.previousElementSibling;
    figure.layout.template = theme(isDark);
    if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
    Plotly.react(place, figure.data, figure.layout, {displaylogo: false, responsive: true});
  }
}
draw(dark.matches);
dark.addEventListener("change", () => draw(dark.matches));
addEventListener("beforeprint", () => draw(false));
addEventListener("afterprint", () => draw(dark.matches));
"""


def write(path: Path, title: str, parts: Iterable[Part]) -> None:
    """Write the page to `path` in one step."""
    write_text(path, html(title, parts))


def html(title: str, parts: Iterable[Part]) -> str:
    """One self-contained page: it asks for nothing from outside, and its tables read without JavaScript too."""
    parts = list(parts)
    names = _anchors(parts)
    body = "\n".join(_part(part, names.get(number, "")) for number, part in enumerate(parts))
    contents = [(part.text, names[n]) for n, part in enumerate(parts) if isinstance(part, Heading) and part.level == 2]
    links = "".join(f'<a href="#{name}">{escape(text)}</a>' for text, name in contents)
    library, script = ("", "")
    if any(isinstance(part, Figure | Grid) for part in parts):
        library, script = f"<script>{get_plotlyjs()}</script>", f"<script>{_SCRIPT}</script>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{library}</head>\n"
        f"<body><h1>{escape(title)}</h1>\n{f'<nav>{links}</nav>' if len(contents) > 2 else ''}\n"
        f"{body}\n{script}</body></html>\n"
    )


def _anchors(parts: Sequence[Part]) -> dict[int, str]:
    """Part number → id, for headings of level 2; no id twice."""
    found: dict[int, str] = {}
    for number, part in enumerate(parts):
        if isinstance(part, Heading) and part.level == 2:
            name = re.sub(r"[^a-z0-9]+", "-", part.text.lower()).strip("-") or "section"
            found[number] = f"{name}-{number}" if name in found.values() else name
    return found


def _part(part: Part, anchor: str) -> str:
    match part:
        case Heading():
            named = f' id="{anchor}"' if anchor else ""
            return f"<h{part.level}{named}>{escape(part.text)}</h{part.level}>"
        case Paragraph():
            return f"<p{_class(part.mark)}>{escape(part.text)}</p>"
        case Table():
            return _table(part)
        case Figure():
            return _figure(part)
        case Grid():
            return f'<div class="grid">{"".join(map(_figure, part.figures))}</div>'


def _table(table: Table) -> str:
    sides = ["words" if place in table.words else "" for place in range(len(table.head))]
    head = "".join(
        f'<th scope="col"{_class(side)}>{escape(name)}</th>' for name, side in zip(table.head, sides, strict=True)
    )
    body = "\n".join(_row(row, sides) for row in table.cells())
    title = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    notes = "".join(f'<p class="bad">{escape(line)}</p>' for line in table.warnings)
    notes += "".join(f"<p>{escape(line)}</p>" for line in table.caption)
    return f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>' + (
        f'<div class="notes">{notes}</div>' if notes else ""
    )


def _row(row: Sequence[Cell], sides: Sequence[str]) -> str:
    first, *others = row
    if not others and len(sides) > 1:
        return f'<tr><th{_class("across", first.mark)} colspan="{len(sides)}">{escape(first.text)}</th></tr>'
    cells = "".join(
        f"<td{_class(side, cell.mark)}>{_cell(cell)}</td>" for cell, side in zip(others, sides[1:], strict=True)
    )
    return f'<tr><th scope="row"{_class(first.mark)}>{_cell(first)}</th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    behind = f' <span class="faint">{escape(cell.faint)}</span>' if cell.faint else ""
    return escape(cell.text) + behind


def _class(*names: str) -> str:
    named = " ".join(filter(None, names))
    return f' class="{named}"' if named else ""


def _figure(part: Figure) -> str:
    content = json.loads(part.figure.to_json() or "{}")
    content["layout"].pop("template", None)
    # Inside <script> only "<" could end the data early.
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    caption = f"<figcaption>{escape(part.caption)}</figcaption>" if part.caption else ""
    return (
        "<figure><div>This figure needs JavaScript; the numbers are in the tables.</div>"
        f'<script type="application/json" class="figure">{data}</script>{caption}</figure>'
    )
