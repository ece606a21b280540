"""One token of a text: its latents by activation or by direct effect on what comes next, and what comes next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import streamlit as st

from app import address, blocks, links, model
from app.cells import bar, signed_bar
from app.latent_names import linker
from app.next_tokens import Chance, chances
from app.notation import percent, plain, short
from app.prompt import prompts
from app.prompt.prompts import Prompt
from app.prompt.tokens import REASONS
from app.table import Column, Order, table
from app.tokens import alone, quoted
from app.workspace import Run
from saelab.errors import UserError

AT, TOWARD = "at", "toward"  # in the address
PART = "prompt"  # of the page, which clicks change
SHOWN = 40  # latents
PREDICTED = 8  # next tokens


@dataclass(frozen=True)
class Active:
    """A latent at the chosen token; the share is of its largest activation in the index, where there is one."""

    latent: int
    value: float
    share: float | None
    effect: float | None


def panel(run: Run, shown: Prompt, place: int) -> None:
    """Both sides of it."""
    last = len(shown.reading) - 1
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader(f"Token {place} of {last}", anchor=False, width="content")
        st.html(f'<span class="sl-chip sl-big">{alone(shown.words[place])}</span>', width="stretch")
        for name, icon, key, to in (("Previous", "back", "Left", place - 1), ("Next", "forward", "Right", place + 1)):
            st.button(
                name, icon=f":material/arrow_{icon}:", key=f"token_{name}", shortcut=key, on_click=_go_to, args=(to,),
                disabled=not 0 <= to <= last,
            )  # fmt: skip
    left, right = st.columns([1.9, 1], gap="large")
    with right:
        _next(run, shown, place)
    with left:
        if reason := int(shown.reading.excluded[place]):
            st.caption(f"No latents here: the dictionary leaves out {REASONS[reason]}.")
        else:
            _latents(run, shown, place)


def _go_to(position: int) -> None:
    st.query_params[AT] = str(position)
    st.query_params.pop(TOWARD, None)


def _next(run: Run, shown: Prompt, place: int) -> None:
    """The likeliest next tokens, as it is and with the reconstruction; the one that does come, in any case."""
    it, vocabulary = shown.reading, model.vocabulary(run)
    if place + 1 < len(it):
        comes = int(it.ids[place + 1])
        losses = [("loss", it.clean.loss), ("with reconstruction", it.rebuilt.loss)]
        known = [(name, f"{float(loss[place]):.2f} nats") for name, loss in losses]
        st.html(blocks.facts([("comes next", quoted(vocabulary[comes])), *known]))
    ids = it.likeliest[place].tolist()
    before, after = it.clean.probability[place].tolist(), it.rebuilt.probability[place].tolist()
    rows = [Chance(vocabulary[id_], *both) for id_, *both in zip(ids, before, after, strict=True)][:PREDICTED]
    st.html(blocks.titled("Likeliest next tokens", chances(rows, "as it is", "with reconstruction"), "probability"))


def _latents(run: Run, shown: Prompt, place: int) -> None:
    """The table; its order and the token that effects are on are in the address."""
    toward = _toward(run, shown, place)
    found, why = _active(run, shown, place, toward)
    if not found:
        st.caption("No latent fires on this token.")
        return
    query = {**st.query_params.to_dict(), "run": run.name}
    columns = _columns(model.vocabulary(run)[toward], has_share=bool(prompts.largest(run)), has_effect=why is None)
    order = Order.from_address(query, columns, "value")
    ordered = sorted(found, key=lambda item: _key(item, order.column), reverse=order.descending)
    largest = max(item.value for item in found)
    strongest = max((abs(item.effect) for item in found if item.effect is not None), default=0.0)
    link = linker(run)
    rows = [_row(run, shown, item, link(item.latent), columns, largest, strongest) for item in ordered[:SHOWN]]
    st.html(table(links.PROMPT, columns, rows, order, query, links.inside(PART)))
    more = f"{SHOWN} of {len(found):,} latents are shown, by the column that is sorted. " if len(found) > SHOWN else ""
    if why is not None:
        st.caption(f"{more}No direct effects: {plain(why)}")
    else:
        st.caption(
            f"{more}Direct effect, in logits: what the latent adds to the token's logit above the mean of all tokens "
            "by the direct path only, straight from where it is written through the final norm (its scale held still) "
            "to the logits. What later layers make of it is not in it."
        )


def _toward(run: Run, shown: Prompt, place: int) -> int:
    """The token whose logit effects are on: chosen, else the one that comes next, else the likeliest."""
    vocabulary, it = model.vocabulary(run), shown.reading
    comes = [int(it.ids[place + 1])] if place + 1 < len(it) else []
    options = list(dict.fromkeys([*comes, *it.likeliest[place].tolist()]))
    asked = address.index(st.query_params.get(TOWARD), len(vocabulary) - 1)
    chosen = options[0] if asked is None else asked
    options = list(dict.fromkeys([chosen, *options]))

    def name(option: int | str) -> str:
        said = quoted(vocabulary[option]) if isinstance(option, int) else option
        return f"{said} (comes next)" if option in comes else said

    st.session_state["prompt_toward"] = chosen
    st.selectbox(
        "Direct effect on the logit of", options, format_func=name, key="prompt_toward", on_change=_keep_toward,
        args=(run,), accept_new_options=True, width=320,
        help="The token that comes next, one of the likeliest, or any: type it, with its leading space if it has one.",
    )  # fmt: skip
    return chosen


def _keep_toward(run: Run) -> None:
    typed = st.session_state["prompt_toward"]
    token = prompts.token_id(run, typed) if isinstance(typed, str) else typed
    if token is not None:
        st.query_params[TOWARD] = str(token)


def _active(run: Run, shown: Prompt, place: int, toward: int) -> tuple[list[Active], str | None]:
    """The latents of the token, and why they have no direct effects if they have none."""
    latents, values = shown.reading.at(place)
    why: str | None = None
    effects: list[float | None] = [None] * len(latents)
    if len(latents):
        try:
            effects = list(prompts.effects(run, shown, place, toward).tolist())
        except UserError as problem:
            why = str(problem)
    largest = prompts.largest(run)
    found = zip(latents.tolist(), values.tolist(), effects, strict=True)
    return [Active(n, value, value / largest[n] if n in largest else None, effect) for n, value, effect in found], why


def _columns(token: str, has_share: bool, has_effect: bool) -> list[Column]:
    columns = [
        Column("latent", "Latent", "Its number, and the token that carries most of it", False, largest_first=False),
        Column("value", "Activation", "On this token, in the dictionary's units", False),
    ]
    if has_share:
        columns.append(Column("share", "Of its largest", "Activation as a share of its largest in the feature index"))
    if has_effect:
        columns.append(Column("effect", f"Direct effect on {alone(token)}", "In logits; the direct path only", False))
    return [*columns, Column("do", "", "Colour the text by it; turn it up", False, sortable=False)]


def _key(item: Active, column: str) -> float:
    value = getattr(item, column)
    return -math.inf if value is None else value


def _row(
    run: Run, shown: Prompt, item: Active, linked: str, columns: list[Column], largest: float, strongest: float
) -> tuple[str, ...]:
    coloured = {**st.query_params.to_dict(), "colour": "latent", "of": item.latent}
    cells = {
        "latent": linked,
        "value": bar("mass", item.value / largest, short(item.value)),
        "share": percent(item.share),
        "effect": "" if item.effect is None else signed_bar(item.effect, strongest),
        "do": f"{links.anchor('show', links.PROMPT, links.inside(PART), **coloured)} · "
        + links.anchor("steer", links.STEER, run=run.name, latents=item.latent, prompt=shown.text),
    }
    return tuple(cells[column.name] for column in columns)
