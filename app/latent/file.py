"""A latent's page as one HTML file that needs nothing else: no server, no script, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from app import blocks, naming, tokens
from app.latent.examples import NAMES, TABS, example_rows
from app.latent.facts import facts
from app.latent.portrait import HISTOGRAM, carried, matched_labels, promoted, relatives
from saelab.features.index import Example, FeatureIndex, LatentStatistics
from saelab.features.notes import Note

_STYLE = (Path(__file__).parents[1] / "style.css").read_text(encoding="utf-8")
_PAGE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1.5rem; max-width: 84rem; font: 16px/1.5 system-ui, sans-serif;
  background: light-dark(#ffffff, #0f141a); color: light-dark(#1b2430, #e7ebf0); }
main { display: grid; grid-template-columns: minmax(0, 1.9fr) minmax(0, 1fr); gap: 2.5rem; }
@media (max-width: 60rem) { main { grid-template-columns: 1fr; } }
h1 { margin: 0 0 .4rem; font-size: 1.7rem; }
h2 { margin: 1.4rem 0 .4rem; font-size: 1.1rem; }
.sl-written { white-space: pre-wrap; margin: 0 0 .8rem; }
svg { width: 100%; height: 9rem; display: block; }
svg rect { fill: light-dark(#e69f00, #d99500); }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def as_html(index: FeatureIndex, latent: int, note: Note) -> str:
    """The page. All text of the corpus and of the note is escaped; links to other latents are their numbers."""
    statistics, examples = index.latent(latent), index.examples(latent)
    name = note.name or naming.meaning(index, latent)
    title = f"Latent {latent}" + (f" · {name}" if name else "")
    dictionary, model = index.summary.get("dictionary", {}), index.summary.get("model", {})
    about = " · ".join(
        str(part[key])
        for part, key in ((dictionary, "architecture"), (dictionary, "site"), (model, "name"))
        if isinstance(part, dict) and part.get(key)
    )
    shown = _examples(index, examples, statistics.max_activation or 0.0)
    written = f'<p class="sl-written">{escape(note.note)}</p>' if note.note else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}{_PAGE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p class="sl-faint">{escape(about)}</p>{facts(index, statistics, examples)}{written}'
        f"<main><div>{shown}</div><div>{_portrait(index, statistics)}</div></main>"
        "</body></html>\n"
    )


def _examples(index: FeatureIndex, found: Sequence[Example], maximum: float) -> str:
    parts = [tokens.legend(maximum)] if found else ["<p>It fired on no token of the index.</p>"]
    for tab, quantile in TABS.items():
        chosen = [example for example in found if example.quantile == quantile]
        if chosen:
            heading = NAMES[tab] + (" of the largest activation" if quantile else "")
            parts.append(f"<h2>{heading}</h2>{example_rows(index, chosen, maximum)}")
    return "".join(parts)


def _portrait(index: FeatureIndex, statistics: LatentStatistics) -> str:
    latent = statistics.latent
    histogram = blocks.titled("Activations", _histogram(statistics), HISTOGRAM) if statistics.n_active else ""
    return (
        carried(index, statistics) + promoted(index, latent) + histogram + matched_labels(index, latent)
        + relatives(index, latent, str)
    )  # fmt: skip


def _histogram(statistics: LatentStatistics) -> str:
    """Bars as a drawing: heights are logarithms of counts, exact numbers in each bar's title."""
    counts, edges = statistics.histogram.tolist(), statistics.bin_edges.tolist()
    tallest = math.log(max(counts) + 1)
    bars = "".join(
        f'<rect x="{place + 0.05:.2f}" width="0.9" y="{100 * (1 - height):.1f}" height="{100 * height:.1f}">'
        f"<title>{count:,} tokens, activation {edges[place]:.3g} to {edges[place + 1]:.3g}</title></rect>"
        for place, count in enumerate(counts)
        if (height := math.log(count + 1) / tallest)
    )
    axis = f'<div class="sl-legend"><span>0</span><span style="flex:1"></span><span>{edges[-1]:.3g}</span></div>'
    return f'<svg viewBox="0 0 {len(counts)} 100" preserveAspectRatio="none" role="img">{bars}</svg>{axis}'
