"""How well latents tell what is known of each token: F1 by label, from one latent up to the dense ceiling."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from saelab.evaluation.figures.style import GREY, WIDE, colour, error_bars, label, laid_out, legend_above, symbol
from saelab.evaluation.labels.report import LabelScore, LabelsReport

_ROWS = {"best latent": 0, "1-latent probe": 1, "2-latent probe": 2, "5-latent probe": 5}


def by_label(report: LabelsReport) -> go.Figure:
    """F1 of every label for one dictionary: best latent, probes of 1, 2, 5 latents, and the dense probe."""
    scores = sorted(report.by_label, key=lambda score: score.dense.f1 or 0.0)
    names = [label(score.label) for score in scores]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[score.dense.f1 for score in scores], orientation="h", name="dense probe: the ceiling",
        marker={"color": GREY, "opacity": 0.3}, hovertemplate="%{y}: F1 %{x:.3f}<extra>dense probe</extra>",
    )  # fmt: skip
    for place, (title, k) in enumerate(_ROWS.items()):
        found = [_f1(score, k) for score in scores]
        figure.add_scatter(
            x=[f1 for f1, _ in found], y=names, mode="markers", name=title,
            marker={"color": colour(place), "symbol": symbol(place), "size": 8},
            customdata=[[latents, score.positives] for (_, latents), score in zip(found, scores, strict=True)],
            hovertemplate="%{y}: F1 %{x:.3f}<br>%{customdata[0]}<br>%{customdata[1]:,} tokens with the label"
            "<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="F1 on documents that nothing was fitted on", range=[0, 1.02])
    figure.update_yaxes(dtick=1, range=[-0.7, len(names) - 0.3])
    return laid_out(figure, f"Labels: {report.about.dictionary}", 150 + 20 * len(names))


def across(reports: Sequence[LabelsReport], k: int = 5) -> go.Figure:
    """F1 of every label by probes of k latents, a marker for each dictionary, beside the dense probe of the first."""
    ceilings = {score.label: score.dense.f1 for score in reports[0].by_label}
    names = sorted(ceilings, key=lambda name: ceilings[name] or 0.0)
    figure = go.Figure()
    figure.add_bar(
        y=[label(name) for name in names], x=[ceilings[name] for name in names], orientation="h",
        name="dense probe: the ceiling", marker={"color": GREY, "opacity": 0.3},
        hovertemplate="%{y}: F1 %{x:.3f}<extra>dense probe</extra>",
    )  # fmt: skip
    for place, report in enumerate(reports):
        found = [(score.label, *_f1(score, k)) for score in report.by_label if score.label in ceilings]
        figure.add_scatter(
            x=[f1 for _, f1, _ in found], y=[label(name) for name, _, _ in found], mode="markers",
            name=label(report.about.dictionary),
            marker={"color": colour(place), "symbol": symbol(place), "size": 8},
            customdata=[[latents] for _, _, latents in found],
            hovertemplate="%{y}: F1 %{x:.3f}<br>%{customdata[0]}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="F1 on documents that nothing was fitted on", range=[0, 1.02])
    figure.update_yaxes(dtick=1, range=[-0.7, len(names) - 0.3])
    return legend_above(laid_out(figure, f"Labels by probes of {k} latents", 150 + 20 * len(names)), WIDE)


def means(reports: Sequence[LabelsReport]) -> go.Figure:
    """Mean F1 over labels against the number of latents looked at, a line for each dictionary; dashed: the ceiling."""
    figure = go.Figure()
    for place, report in enumerate(reports):
        numbers = [f"probe_f1_{k}" for k in (1, 2, 5)]
        values = [getattr(report.metrics, number) for number in numbers]
        intervals = [report.intervals.of.get(number) for number in numbers]
        bars = [
            (value, None, None) if interval is None else (value, interval.low, interval.high)
            for value, interval in zip(values, intervals, strict=True)
        ]
        figure.add_scatter(
            x=[1, 2, 5], y=values, error_y=error_bars(bars), mode="lines+markers", name=label(report.about.dictionary),
            line={"color": colour(place)}, marker={"symbol": symbol(place), "size": 8},
            hovertemplate="%{x} latents: mean F1 %{y:.3f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    ceilings = {report.about.site: report.metrics.dense_f1 for report in reports}
    for site, ceiling in ceilings.items():
        if ceiling is not None:
            text = "dense probe" if len(ceilings) == 1 else f"dense probe at {label(site)}"
            figure.add_hline(y=ceiling, line={"dash": "dash", "color": GREY}, annotation_text=text)
    figure.update_xaxes(title="latents in the probe", tickvals=[1, 2, 5])
    figure.update_yaxes(title="F1, mean over labels", tickformat="~g")
    return legend_above(laid_out(figure, "What k latents tell of a label"), WIDE)


def _f1(score: LabelScore, k: int) -> tuple[float | None, str]:
    """F1 and the latents behind it; k = 0 is the best latent alone."""
    if k == 0:
        return score.best.f1, f"latent {score.latent} above {score.threshold:.3g}"
    probe = score.probes[min(k, len(score.probes)) - 1]
    return probe.f1, f"latents {', '.join(map(str, probe.latents))}"
