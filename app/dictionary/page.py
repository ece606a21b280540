"""The dictionary at a glance: what and how good it is, where to begin, all latents, how they fire, where they point."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import blocks, reading, state
from app.budget import Budget, warnings
from app.dictionary.decoder_map import decoder_map
from app.dictionary.groups import groups
from app.dictionary.latent_table import latent_table
from app.dictionary.spread import spread
from app.dictionary.starting_points import starting_points
from app.notation import counted, percent, plain, short
from app.problems import NothingToShowError, empty_state
from app.runs.training_curves import training_curves
from app.workspace import Run
from saelab.evaluation.report import FidelityReport

TILES = {
    "fvu": "Unexplained (FVU)",
    "loss_recovered_zero": "Loss recovered",
    "delta_ce": "Added loss (ΔCE)",
    "kl": "KL from clean",
    "l0": "Active latents (L0)",
    "dead_fraction": "Dead latents",
}
SHARES = {"fvu", "loss_recovered_zero", "dead_fraction"}


def show() -> None:
    """The page."""
    run = state.chosen_run()
    st.title(plain(run.name), anchor=False)
    _header(run)
    _quality(run)
    if run.is_training:
        training_curves(run)
    groups(run, reading.dictionary_config(run))
    try:
        index = reading.feature_index(run)
    except NothingToShowError as problem:
        empty_state(problem.title, problem.sentence, problem.command)
    else:
        starting_points(run, index)
        latent_table(run)
        spread(run, index)
        decoder_map(run)
    if not run.is_training:
        training_curves(run)


def _header(run: Run) -> None:
    config = reading.dictionary_config(run)
    if config:
        st.html(
            blocks.facts(
                [
                    ("model", config["model"]),
                    ("site", _site(config)),
                    ("architecture", config["architecture"]),
                    ("latents", f"{config['d_sae']:,}"),
                    ("k", f"{config['k']:,}"),
                    ("width", f"{config['d_in']:,}"),
                    ("trained on", f"{counted(config['tokens_trained'])} tokens"),
                ]
            )
        )


def _site(config: dict[str, Any]) -> str:
    """Where it reads and, if that is elsewhere, where it writes."""
    written = [target["site"] for target in config.get("targets", [])]
    return " → ".join([config["site"], *filter(None, [" + ".join(written)])])


def _quality(run: Run) -> None:
    report = reading.fidelity(run)
    if report is None:
        if run.has_dictionary:
            empty_state(
                "Not evaluated yet",
                "How faithful is it? One pass over held-out text says.",
                f"saelab evaluate {run.paths.root}",
            )
        return
    about = report.about
    if reading.is_of_earlier_weights(run, report):
        st.caption(":red[These numbers are of earlier weights: the dictionary was changed after it was evaluated.]")
    st.html(blocks.tiles(_tile(report, name) for name in TILES))
    st.caption(
        f"Measured on {about.tokens:,} held-out tokens of {about.documents:,} documents; selection rule: "
        f"{about.selection_rule}. In brackets: {report.intervals.level:.0%} bootstrap intervals over documents."
    )
    budget = Budget.of(run, reading.dictionary_config(run), report.metrics)
    if budget is not None and budget.is_off:
        st.html(warnings([budget]))
    if report.leaking is not None:
        numbers = report.leaking.metrics
        st.caption(
            f":red[Leaking], with latents chosen as in training: FVU {percent(numbers.fvu)}, "
            f"ΔCE {short(numbers.delta_ce)}, KL {short(numbers.kl)}. Such a choice sees the gradient of the loss, "
            "and in it the next token.",
            help=report.leaking.warning,
        )


def _tile(report: FidelityReport, name: str) -> blocks.Tile:
    """One metric; its unit and meaning come from the report's own schema."""
    field = type(report.metrics).model_fields[name]
    extra = field.json_schema_extra
    unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
    format_ = percent if name in SHARES else short
    interval = report.intervals.of.get(name)
    note = ""
    if interval is not None and interval.low is not None and interval.high is not None:
        note = f"[{format_(interval.low)}, {format_(interval.high)}]"
    elif name == "dead_fraction":
        note = f"{report.metrics.dead:,} of {report.about.d_sae:,}"
    about = f"{field.title}: {field.description}"
    return blocks.Tile(
        TILES[name], format_(getattr(report.metrics, name)), unit.replace("latents/", "per "), note, about
    )
