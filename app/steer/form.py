"""What to steer, how, and where: controls whose values are in the address."""

from __future__ import annotations

import streamlit as st

from app import address, links, reading
from app.latent_names import linked
from app.notation import plain
from app.prompt import prompts
from app.prompt.prompts import LONGEST
from app.prompt.tokens import Cell, scale, strip
from app.steer.settings import LARGEST, LATENTS
from app.workspace import Run
from saelab.errors import UserError
from saelab.steering.config import SteerConfig

MODES = {"add": "add", "clamp": "clamp", "scale": "scale", "zero": "zero"}
METHODS = {"difference": "difference of codes", "direction": "direction"}
POSITIONS = "positions"  # in the address, as `SteerConfig` spells them
WHERE = {"all": "all tokens", "end": "from the last prompt token on", "from": "from one token on", "only": "one token"}
DEFAULTS = {name: field.default for name, field in SteerConfig.model_fields.items()}
ABOUT_MODES = """What happens to a latent's activation f. **add**: f + strength × its largest activation.
**clamp**: strength × its largest activation, everywhere. **scale**: f × strength, so 1 changes nothing. **zero**: 0."""
ABOUT_METHODS = """**difference**: the edited activations are decoded and what changed is added; the rest of what the
model had stays. **direction**: strength × largest activation × decoder direction is added (mode add only)."""


def form(run: Run) -> None:
    """All controls, the prompt's tokens among them."""
    prompt = address.text("Prompt", "prompt", DEFAULTS["prompt"], lines=2, max_chars=LONGEST, forgets=(POSITIONS,))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        address.text("Latents", LATENTS, placeholder="as in: 12, 40", width=150)
        mode = address.choice("Mode", "mode", MODES, "add", help=ABOUT_MODES)
        if mode != "zero":
            what = "A factor on the activation." if mode == "scale" else "In units of each latent's largest activation."
            address.text("Strengths", "strength", "1, 2, 4", width=130, help=f"{what} Each is tried: 1, 2, 4")
            address.text(
                "Ratio", "ratio", placeholder="1 each", width=110,
                help="A factor on the strength for each latent, in their order: 1, -0.5",
            )  # fmt: skip
        address.choice("Method", "method", METHODS, "difference", help=ABOUT_METHODS)
    _named(run)
    _positions(run, prompt)
    with st.expander("How texts are drawn"), st.container(horizontal=True, gap="medium"):
        address.whole("Tokens to write", "max_new_tokens", DEFAULTS["max_new_tokens"], 1, LARGEST["max_new_tokens"])
        address.whole(
            "Texts for each strength", "samples", 1, 1, LARGEST["samples"], help="Each with a seed of its own"
        )
        address.whole("First seed", "seed", 0, 0, 10**6)
        address.text("Temperature", "temperature", str(DEFAULTS["temperature"]), help="0: always the likeliest token")
        address.text("Top k", "top_k", placeholder="no limit", help="Draw from so many likeliest tokens only")
        address.text("Top p", "top_p", placeholder="1", help="Draw from the fewest tokens with this probability")


def _named(run: Run) -> None:
    """The chosen latents as links, with what is known of them."""
    d_sae = reading.dictionary_config(run).get("d_sae", 0)
    numbers = [number for number in latents() if number < d_sae]
    if numbers:
        st.html(
            f'<div class="sl-chips">{"".join(f"<span class=sl-chip>{linked(run, n)}</span>" for n in numbers)}</div>'
        )


def latents() -> list[int]:
    """The latents in the address, as far as they are numbers."""
    parts = st.query_params.get(LATENTS, "").split(",")[: LARGEST["latent"]]
    return [number for part in parts if (number := address.index(part.strip(), 10**8)) is not None]


def _positions(run: Run, prompt: str) -> None:
    """Which tokens are edited; a click on one of the prompt's sets where."""
    kind, number = place(st.query_params.get(POSITIONS, "all"))
    st.session_state["steer_where"] = kind
    st.segmented_control(
        "Which tokens are edited", list(WHERE), format_func=WHERE.__getitem__, required=True, key="steer_where",
        on_change=_keep_where, args=(number,),
    )  # fmt: skip
    chosen = latents()
    if not prompt.strip() or not chosen:
        return
    try:
        shown = prompts.prompt(run, prompt)
    except UserError as problem:
        st.caption(plain(str(problem)))
        return
    at = None if number is None else number + len(shown.words) if number < 0 else number
    known = [latent for latent in chosen if latent < shown.reading.codes.d_sae]
    values = sum((shown.reading.of(latent) for latent in known), start=0 * shown.reading.of(0)).tolist()
    query = st.query_params.to_dict()
    cells = [
        Cell(
            word, value, f" · position {n} · activation {value:.3g}",
            {**query, POSITIONS: spelled("only" if kind == "only" else "from", n)}, n == at,
            not _is_edited(kind, at, n, len(values)),
        )
        for n, (word, value) in enumerate(zip(shown.words, values, strict=True))
    ]  # fmt: skip
    largest = max(values)
    what = "activation of the latent, unedited" if len(known) == 1 else "activations of the latents together, unedited"
    st.html(strip(cells, largest, links.STEER) + (scale(largest, what) if largest > 0 else ""))
    notes = ["A click on a token sets where the edits begin."]
    if any(cell.is_left_out for cell in cells):
        notes.append("Underlined tokens are not edited.")
    if known and largest == 0:
        notes.append(f"{'It does not fire' if len(known) == 1 else 'None of them fires'} on this prompt.")
    st.caption(" ".join(notes))


def _is_edited(kind: str, at: int | None, position: int, length: int) -> bool:
    if kind == "all":
        return True
    first = length - 1 if kind == "end" or at is None else at
    return position == first if kind == "only" else position >= first


def place(positions: str) -> tuple[str, int | None]:
    """What `SteerConfig.positions` says: the kind in `WHERE`, and the position where it begins."""
    number = positions.strip().removesuffix(":")
    if not number.removeprefix("-").isdecimal() or len(number) > 6:
        return "all", None
    if positions.strip() == "-1:":
        return "end", -1
    return ("from" if positions.strip().endswith(":") else "only"), int(number)


def spelled(kind: str, number: int) -> str:
    """The other way round."""
    return {"all": "all", "end": "-1:", "from": f"{number}:", "only": f"{number}"}[kind]


def _keep_where(number: int | None) -> None:
    kind = st.session_state["steer_where"]
    st.query_params[POSITIONS] = spelled(kind, -1 if number is None else number)
    if kind == "from" and number in (None, -1):  # "-1:" is the choice before it
        st.query_params[POSITIONS] = "1:"
