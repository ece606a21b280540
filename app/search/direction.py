"""Latents by a direction: whose decoder rows point the same way as a vector that is pasted or picked."""

from __future__ import annotations

import re

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app import address, blocks, model, reading, state
from app.blocks import Bar
from app.latent.portrait import latent_link
from app.notation import plain
from app.tokens import quoted
from app.workspace import Run
from saelab.errors import UserError
from saelab.features import nearest
from saelab.features.index import FeatureIndex

FROM, OF, LATENT, TOKEN = "from", "of", "n", "t"  # in the address
SHOWN = 15
WAYS = {
    "decoder": "A latent's decoder row",
    "encoder": "A latent's encoder row",
    "raises": "What raises a token's logit",
    "embedding": "A token's embedding",
    "paste": "Numbers you paste",
}
LONGEST = 400_000  # characters that are pasted


def by_direction(run: Run, index: FeatureIndex) -> None:
    """Where the direction comes from, and the latents nearest to it."""
    way = address.choice("Direction", FROM, WAYS, "decoder")
    try:
        vector = (
            _pasted() if way == "paste" else _of_token(run, way) if way in ("raises", "embedding") else _of(run, way)
        )
        if vector is None:
            return
        found = nearest.cosines(run.paths.dictionary, vector)
    except UserError as problem:
        st.warning(plain(f"{str(problem)[:1].upper()}{str(problem)[1:]}."))
        return
    columns = st.columns(2, gap="large")
    order = np.argsort(-found, kind="stable")
    lists = (("Nearest", "promoted", order[:SHOWN]), ("Most opposite", "suppressed", order[::-1][:SHOWN]))
    for column, (title, kind, latents) in zip(columns, lists, strict=True):
        lines = [Bar(latent_link(run, i), abs(float(found[i])), f"{found[i]:+.3f}") for i in latents.tolist()]
        column.html(blocks.titled(title, blocks.bars(lines, kind), "cosine with the decoder row"))
    st.caption(
        f"Of {index.d_sae:,} decoder rows of {len(vector):,} numbers; two random directions have a cosine of about "
        f"±{1 / np.sqrt(len(vector)):.3f}."
    )


def _of(run: Run, way: str) -> NDArray[np.float32] | None:
    """A row of this run's dictionary or of another's."""
    runs = {name: other for name, other in state.workspace().runs.items() if other.has_dictionary}
    if run.name not in runs:
        raise UserError("this run has no dictionary beside its feature index")
    left, right = st.columns([3, 1])
    with left:
        other = runs[_chosen(list(runs), run.name)]
    config = reading.dictionary_config(other)
    with right:
        latent = address.whole("Latent", LATENT, 0, 0, config["d_sae"] - 1)
    here, there = (reading.dictionary_config(each) for each in (run, other))
    sites = (_written(here), _written(there) if way == "decoder" else there["site"])
    if (here["model"], sites[0]) != (there["model"], sites[1]):
        st.caption(
            plain(
                f"That row is of {sites[1]} in {there['model']}, these decoder rows are of {sites[0]} in "
                f"{here['model']}: coordinates may mean something else."
            )
        )
    return nearest.row(other.paths.dictionary, latent, "W_dec" if way == "decoder" else "W_enc")


def _written(config: dict) -> str:
    return " + ".join(target["site"] for target in config.get("targets", [])) or config["site"]


def _chosen(names: list[str], default: str) -> str:
    """The run in the address, behind the control that changes it."""
    named = st.query_params.get(OF)
    st.session_state["direction_of"] = named if named in names else default
    return st.selectbox("of the run", names, key="direction_of", on_change=_keep_run) or default


def _keep_run() -> None:
    st.query_params[OF] = st.session_state["direction_of"]
    st.query_params.pop(LATENT, None)


def _of_token(run: Run, way: str) -> NDArray[np.float32] | None:
    """A token's direction in the residual stream; the model is loaded for it."""
    text = address.text("Token", TOKEN, placeholder="as in: said (its form inside a text, with a space before it)")
    if not text:
        return None
    index = reading.feature_index(run)
    if way == "raises" and not index.summary.get("has_logits", True):
        raise UserError(index.summary.get("why_no_logits") or "this site does not lie in the residual stream")
    ids = index.find_tokens(f" {text.strip()}", 1) if not text.startswith(" ") else index.find_tokens(text, 1)
    if not ids:
        raise UserError(f"no token of the model reads {text!r}; try a shorter piece")
    st.caption(plain(f"The token {quoted(index.vocabulary[ids[0]])}, number {ids[0]:,} of the vocabulary."))
    import torch

    language_model = model.language_model(run)
    wanted = torch.tensor(ids)
    found = language_model.logit_directions(wanted) if way == "raises" else language_model.embeddings(wanted)
    return found[0].float().cpu().numpy()


def _pasted() -> NDArray[np.float32] | None:
    """Numbers in any common notation. They are not part of the address, which they would make too long."""
    text = st.text_area(
        "Numbers, separated by commas, spaces or lines", key="pasted", max_chars=LONGEST, height=120,
        placeholder="0.12, -0.5, …", help="Pasted numbers are not part of the link.",
    )  # fmt: skip
    return numbers(text) if text.strip() else None


def numbers(text: str) -> NDArray[np.float32]:
    """The numbers in a text: JSON, NumPy's and PyTorch's printed arrays, CSV.

    Raises:
        UserError: a word that is no number.
    """
    words = re.sub(r"^\s*(tensor|array)\(|\)\s*$|dtype=\S+|[\[\],;()]", " ", text).split()
    for word in words:
        if not _is_number(word):
            raise UserError(f"{word[:40]!r} is no number")
    return np.array([float(word) for word in words], np.float32)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
