"""A text of your own: every token's latents, what their reconstruction misses and costs; or two texts, side by side."""

from __future__ import annotations

from html import escape

import streamlit as st

from app import address, blocks, links, state
from app.notation import percent, short
from app.part import follow, part
from app.problems import empty_state
from app.prompt import prompts
from app.prompt.comparison import comparison
from app.prompt.measure import MEASURES, Measure, cells
from app.prompt.panel import AT, PART, TOWARD, panel
from app.prompt.prompts import LONGEST, Prompt
from app.prompt.tokens import REASONS, scale, strip
from app.workspace import Run

TEXT, OTHER, OTHER_AT, COLOUR, OF = "text", "other", "other_at", "colour", "of"  # in the address, as are AT, TOWARD


def show() -> None:
    """The page."""
    run = state.chosen_run()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Prompt", anchor=False, width="stretch")
        links.copy_button()
    texts = _texts()
    if texts[0].strip():
        prompt(run, [text for text in texts if text.strip()])
    else:
        _offer(run)


@part
def prompt(run: Run, texts: list[str]) -> None:
    """All that is said of one text or two, drawn again alone at every click."""
    follow(PART, (AT, OTHER_AT, TOWARD, COLOUR, OF, "sort", "order"))
    shown = [prompts.prompt(run, text) for text in texts]
    measure = _measure(run, shown)
    if len(shown) == 2:
        places = _place(shown[0], AT), _place(shown[1], OTHER_AT)
        for column, each, place, name in zip(st.columns(2, gap="large"), shown, places, (AT, OTHER_AT), strict=True):
            with column:
                _text(each, place, name, measure, shown)
        comparison(run, shown[0], shown[1], *places)
        return
    place = _place(shown[0], AT)
    _text(shown[0], place, AT, measure, shown)
    panel(run, shown[0], place)


def _texts() -> tuple[str, str]:
    """The two text fields; the second is there once it is asked for."""
    is_compared = OTHER in st.query_params
    columns = st.columns(2, gap="large") if is_compared else [st.container()]
    with columns[0]:
        said = "Any text, in the language of the model. Ctrl+Enter reads it."
        text = address.text("Text", TEXT, forgets=(AT, TOWARD), lines=2, max_chars=LONGEST, placeholder=said)
    other = ""
    if is_compared:
        with columns[1]:
            said = "A text that differs in one thing, say."
            other = address.text(
                "Another text", OTHER, forgets=(OTHER_AT,), lines=2, max_chars=LONGEST, placeholder=said
            )
    if text.strip():
        st.button(
            "Close the second text" if is_compared else "Compare with another text",
            icon=":material/close:" if is_compared else ":material/compare_arrows:",
            key="compare",
            on_click=_toggle_comparison,
        )
    return text, other


def _toggle_comparison() -> None:
    if OTHER in st.query_params:
        del st.query_params[OTHER]
    else:
        st.query_params[OTHER] = st.query_params.get(TEXT, "")
    st.query_params.pop(OTHER_AT, None)


def _offer(run: Run) -> None:
    """Where there is no text yet: sentences to begin with."""
    index = prompts.usable_index(run)
    found = prompts.sentences(index) if index is not None else []
    if not found:
        empty_state("No text yet", "Type some above. The model is loaded when the first text is read.")
        return
    cards = "".join(
        links.anchor(f"<p>{escape(each)}</p>", links.PROMPT, "sl-card", run=run.name, text=each) for each in found
    )
    st.html(
        blocks.titled("Or begin with one of these", f'<div class="sl-cards">{cards}</div>', "from the indexed text")
    )


def _measure(run: Run, shown: list[Prompt]) -> Measure:
    """What colours the tokens, behind the controls that choose it."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        titles = {name: kind.title for name, kind in MEASURES.items()}
        chosen, latent = address.choice("Colour tokens by", COLOUR, titles, "error"), None
        if chosen == "latent":
            latent = address.whole("Latent", OF, 0, 0, shown[0].reading.codes.d_sae - 1, width=140)
        measure = Measure(chosen, latent)
        st.html(scale(measure.maximum(shown), measure.unit), width="content")
    return measure


def _place(shown: Prompt, name: str) -> int:
    """The chosen position; the last one when the address names none that there is."""
    last = len(shown.reading) - 1
    named = address.index(st.query_params.get(name), last)
    return last if named is None else named


def _text(shown: Prompt, place: int, name: str, measure: Measure, together: list[Prompt]) -> None:
    """The tokens, what is left out of them, and the numbers of the whole text."""
    query = {**st.query_params.to_dict(), TOWARD: None}
    tokens = cells(shown, place, measure, query, name)
    st.html(strip(tokens, measure.maximum(together), links.PROMPT, links.inside(PART)))
    tiles = _tiles(shown)
    if len(together) == 1:
        st.html(blocks.tiles(tiles))
    else:
        st.html(blocks.facts((tile.name, f"{tile.value} {tile.unit}".strip()) for tile in tiles))
    notes = []
    left_out = sorted({REASONS[reason] for reason in shown.reading.excluded.tolist() if reason})
    if left_out:
        notes.append(f"The dictionary leaves out, as in its training: {'; '.join(left_out)}.")
    if shown.left_out:
        notes.append(
            f"Only the first {len(shown.reading):,} tokens are read, the length of the texts that the dictionary was "
            f"trained on; {shown.left_out:,} more are not."
        )
    if notes:
        st.caption(" ".join(notes))


def _tiles(shown: Prompt) -> list[blocks.Tile]:
    it = shown.reading
    clean, rebuilt = (float(prediction.loss[it.scored].mean()) for prediction in (it.clean, it.rebuilt))
    n, kept = int(it.scored.sum()), int(it.kept.sum())
    on = f"on {n:,} predictions"
    if not n:
        return [blocks.Tile("Tokens", f"{len(it):,}", note="too few to predict any")]
    return [
        blocks.Tile("Loss (CE)", short(clean), "nats/token", on, "The model as it is."),
        blocks.Tile(
            "With reconstruction", short(rebuilt), "nats/token", on,
            "The same with the dictionary's reconstruction in the place of the activation, at all kept tokens at once.",
        ),
        blocks.Tile("Added loss (ΔCE)", f"{rebuilt - clean:+.3f}", "nats/token", on, "The difference of the two."),
        blocks.Tile(
            "Reconstruction error", percent(float(it.error[it.kept].mean())), "", f"mean of {kept:,} tokens",
            "|x − x̂|² / |x|²: the share of an activation's squared length that the reconstruction misses.",
        ),
        blocks.Tile(
            "Active latents (L0)", short(float(it.codes.counts[it.kept].double().mean())), "per token",
            f"mean of {kept:,} tokens",
        ),
    ]  # fmt: skip
