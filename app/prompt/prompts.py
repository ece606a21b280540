"""Texts that visitors type, read by the run's model and dictionary: computed once for each text, and kept a while."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st
from jaxtyping import Float

from app import model, reading
from app.problems import NothingToShowError
from app.workspace import Run
from saelab.errors import UserError
from saelab.features.index import FeatureIndex

if TYPE_CHECKING:
    from torch import Tensor

    from saelab.features.prompt import PromptReading

LONGEST = 1000  # characters of a text: it travels in the address
READ = 64  # texts kept, of all visitors together; each is a few hundred kilobytes
WORDS = (5, 18)  # of a sentence that is offered as a first text


@dataclass(frozen=True, eq=False)
class Prompt:
    """A text and what was read of it."""

    text: str
    reading: PromptReading
    words: tuple[str, ...]
    """Each position's token as text."""
    left_out: int
    """Tokens at the end that were not read, as they are more than the dictionary's texts were long."""


def prompt(run: Run, text: str) -> Prompt:
    """What the run's dictionary sees in the text, of which `LONGEST` characters are read."""
    return _read(run, text[:LONGEST], model.version(run))


@st.cache_resource(max_entries=READ, show_spinner="Reading the text…")
def _read(_run: Run, text: str, version: str) -> Prompt:
    from saelab.features.prompt import read_prompt
    from saelab.steering.steer import prompt_ids

    language_model, dictionary = model.language_model(_run), model.dictionary(_run)
    ids = prompt_ids(language_model, text)
    longest = min(language_model.n_ctx, int(dictionary.config.policy.get("context", language_model.n_ctx)))
    reading = read_prompt(language_model, dictionary, ids[:longest])
    vocabulary = model.vocabulary(_run)
    words = tuple(vocabulary[id_] for id_ in reading.ids.tolist())
    return Prompt(text, reading, words, max(len(ids) - longest, 0))


def effects(run: Run, shown: Prompt, position: int, token: int) -> Tensor:
    """Direct effects of the latents that fire at a position on a token's logit, in the order of `reading.at`.

    Raises:
        UserError: there is no direct path from where the dictionary writes.
    """
    return _effects(run, shown, model.version(run), shown.text, position, token)


@st.cache_resource(max_entries=512, show_spinner=False)
def _effects(_run: Run, _shown: Prompt, version: str, text: str, position: int, token: int) -> Tensor:
    from saelab.features.direct_effect import direct_effects

    latents, values = _shown.reading.at(position)
    scale = float(_shown.reading.final_scale[position])
    return direct_effects(model.language_model(_run), model.dictionary(_run), latents, values, scale, token)


def usable_index(run: Run) -> FeatureIndex | None:
    """The run's feature index; None where there is none, or none of the present schema: a text can be read without."""
    try:
        return reading.feature_index(run)
    except (NothingToShowError, UserError):
        return None


def largest(run: Run) -> dict[int, float]:
    """Each latent's largest activation in the feature index; latents that never fired are missing, all without one."""
    return _largest(index, reading.index_stamp(run)) if (index := usable_index(run)) is not None else {}


@st.cache_resource(max_entries=reading.INDEXES_OPEN, show_spinner=False)
def _largest(_index: FeatureIndex, stamp: str) -> dict[int, float]:
    values = _index.latents()["max_activation"].to_pylist()
    return {latent: value for latent, value in enumerate(values) if value}


def units(run: Run, d_sae: int) -> Float[Tensor, "d_sae"]:
    """`largest` as a tensor, for arithmetic over all latents at once: 0 for those that are missing."""
    import torch

    index = usable_index(run)
    return torch.zeros(d_sae) if index is None else _units(index, reading.index_stamp(run))


@st.cache_resource(max_entries=reading.INDEXES_OPEN, show_spinner=False)
def _units(_index: FeatureIndex, stamp: str) -> Tensor:
    import torch

    return torch.tensor(_index.latents()["max_activation"].fill_null(0).to_numpy())


def token_id(run: Run, text: str) -> int | None:
    """The first token of a piece of text as it would stand behind other text; None for no text."""
    from saelab.activations.forward import tokenizer_of

    ids = tokenizer_of(model.language_model(run))(text, add_special_tokens=False)["input_ids"]
    return int(ids[0]) if ids else None


def sentences(index: FeatureIndex, n: int = 3) -> list[str]:
    """Whole sentences of the indexed text, of a length to read at a glance; each from another row."""
    found: list[str] = []
    context, end = index.summary["context"], index.summary["n_positions"]
    for row in range(min(20 * n, end // context)):
        ids = index.window(row * context, before=0, after=context - 1).tokens.tolist()
        text = "".join(index.vocabulary[id_] for id_ in ids)
        whole = re.split(r"(?<=[.!?])\s+", re.sub(r"<\|.*?\|>", " ", text))[1:-1]  # the first and last may be cut
        fitting = [s.strip() for s in whole if WORDS[0] <= len(s.split()) <= WORDS[1] and s.isprintable()]
        found += fitting[:1]
        if len(found) == n:
            break
    return found
