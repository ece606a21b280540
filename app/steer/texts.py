"""Texts with and without the edits, side by side for several seeds: written before the reader's eyes, until stopped.

Every token is one step of the page's script. A press on Stop, or anything else that runs the page again, ends the
script at its next step, so nothing is computed for a reader who has left. What is written belongs to the visit alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import model
from app.notation import plain
from app.steer import steering
from app.steer.settings import as_json
from app.tokens import running
from app.workspace import Run
from saelab.errors import UserError
from saelab.steering.config import SteerConfig

WRITTEN, WRITING = "steer_written", "steer_writing"  # in the session
COLUMNS = 4
STEP_SECONDS = 0.1  # between two looks of the page at what is being written


@dataclass
class Written:
    """Texts of one set of settings, as far as they have come; variant 0 is the model as it is."""

    settings: str
    ids: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # by variant and seed
    whole: set[tuple[int, int]] = field(default_factory=set)


def texts(run: Run, config: SteerConfig) -> None:
    """The section."""
    st.subheader("Texts", anchor=False)
    settings = as_json(config)
    written: Written | None = st.session_state.get(WRITTEN)
    is_writing = st.session_state.get(WRITING) == settings and written is not None
    variants: list[float | None] = [None, *config.strengths]
    _buttons(settings, len(variants) * config.samples, is_writing)
    if written is None:
        return
    if written.settings != settings:
        st.caption("The settings have changed since the last texts were written.")
        return
    places = _grid(run, config, written, variants)
    if is_writing:
        _write(run, config, written, variants, places)


def _buttons(settings: str, n: int, is_writing: bool) -> None:
    if is_writing:
        st.button("Stop", icon=":material/stop:", key="steer_stop", on_click=_stop)
    else:
        name = "Write a text" if n == 1 else f"Write {n} texts"
        st.button(name, icon=":material/edit:", key="steer_write", type="primary", on_click=_begin, args=(settings,))


def _begin(settings: str) -> None:
    st.session_state[WRITTEN] = Written(settings)
    st.session_state[WRITING] = settings


def _stop() -> None:
    st.session_state.pop(WRITING, None)


def _grid(
    run: Run, config: SteerConfig, written: Written, variants: list[float | None]
) -> dict[tuple[int, int], DeltaGenerator]:
    """A heading for each variant and below it a place for each seed, filled with what there is already."""
    places: dict[tuple[int, int], DeltaGenerator] = {}
    width = min(len(variants), COLUMNS)
    for start in range(0, len(variants), width):
        for column, number in zip(st.columns(width, gap="medium"), range(start, len(variants)), strict=False):
            column.html(f'<h4 class="sl-title">{escape(heading(config, variants[number], number))}</h4>')
            for seed in config.seeds:
                places[number, seed] = column.empty()
                _fill(places[number, seed], run, config, written, number, seed)
    return places


def heading(config: SteerConfig, strength: float | None, number: int) -> str:
    """What a column of texts is called."""
    if number == 0:
        return "As it is"
    return config.mode if strength is None else f"{config.mode} {strength:g}"


def _write(
    run: Run,
    config: SteerConfig,
    written: Written,
    variants: list[float | None],
    places: dict[tuple[int, int], DeltaGenerator],
) -> None:
    """Every text that is not whole yet, seed by seed, so that the first row is there first."""
    try:
        for seed in config.seeds:
            for number, strength in enumerate(variants):
                if (number, seed) in written.whole:
                    continue
                ids = written.ids[number, seed] = []
                last = 0.0
                for token in _tokens(run, config, strength, number, seed):
                    ids.append(token)
                    if time.monotonic() - last > STEP_SECONDS:
                        _fill(places[number, seed], run, config, written, number, seed)
                        last = time.monotonic()
                written.whole.add((number, seed))
                _fill(places[number, seed], run, config, written, number, seed)
    except UserError as problem:
        _stop()
        st.caption(plain(str(problem)))
        return
    _stop()
    st.rerun()


def _tokens(run: Run, config: SteerConfig, strength: float | None, number: int, seed: int) -> Iterator[int]:
    """The new tokens of one text, the same that `saelab steer` writes."""
    from saelab.steering.steer import prompt_ids
    from saelab.steering.steered import Sampling, continuing

    language_model = model.language_model(run)
    return continuing(
        language_model,
        model.dictionary(run),
        prompt_ids(language_model, config.prompt),
        config.edits(strength) if number else [],
        sampling=Sampling(config.max_new_tokens, config.temperature, config.top_k, config.top_p, seed),
        method=config.method,
        units=steering.units(run, config),
        positions=config.positions,
    )


def _fill(place: DeltaGenerator, run: Run, config: SteerConfig, written: Written, number: int, seed: int) -> None:
    ids = written.ids.get((number, seed), [])
    shared = common(ids, written.ids.get((0, seed), [])) if number else 0
    text = _decoded(run, ids)
    start = _decoded(run, ids[:shared])
    start = start if text.startswith(start) else ""  # a character may be cut in two there
    note = "" if (number, seed) in written.whole or not ids else " · not finished"
    seeds = f'<span class="sl-faint">seed {seed}{note}</span>' if config.samples > 1 or note else ""
    place.html(
        f'<div class="sl-text">{seeds}<p><span class="sl-faint">{running(config.prompt)}</span>'
        f'<span class="sl-shared">{running(start)}</span>{running(text[len(start) :])}</p></div>'
    )


def common(one: list[int], other: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _decoded(run: Run, ids: list[int]) -> str:
    from saelab.activations.forward import tokenizer_of

    return str(tokenizer_of(model.language_model(run)).decode(ids)) if ids else ""
