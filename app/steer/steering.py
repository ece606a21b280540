"""What the Steer page computes: units, and the next token under edits; once for the same settings, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from app import model
from app.workspace import Run
from saelab.steering.config import SteerConfig

if TYPE_CHECKING:
    from torch import Tensor

ANSWERED = 8  # sets of settings whose answers are kept; each is a row of logits for every strength
SAMPLING = {"samples", "temperature", "top_k", "top_p", "seed", "device", "unit_tokens"}


@dataclass(frozen=True, eq=False)
class Answers:
    """The next token's logits at each strength, and as it is."""

    strengths: list[float | None]
    clean: Tensor
    """[d_vocab]."""
    logits: Tensor
    """[strengths, d_vocab]."""

    rounding: float
    """How far logits of the same text may differ that were computed side by side."""

    @property
    def change_nothing(self) -> bool:
        """Whether no strength has an effect."""
        return float((self.logits - self.clean).abs().max()) <= self.rounding

    def at(self, strength: float | None) -> Tensor:
        return self.logits[self.strengths.index(None if strength is None else round(strength, 6))]


def units(run: Run, config: SteerConfig) -> Tensor:
    """Largest activation of the edited latents, [d_sae], 0 elsewhere.

    Raises:
        UserError: a latent that does not exist or never fired.
    """
    key = config.model_dump_json(include={"latent", "mode", "unit_tokens"})
    return _units(run, config, f"{model.version(run)} {run.has_index} {key}")


@st.cache_resource(max_entries=32, show_spinner="Measuring the latents' largest activations…")
def _units(_run: Run, _config: SteerConfig, key: str) -> Tensor:
    from saelab.steering.edits import as_edits
    from saelab.steering.steer import largest_of

    dictionary = model.dictionary(_run)
    as_edits(_config.edits(_config.strengths[0]), dictionary.d_sae)
    return largest_of(_run.paths.root, model.language_model(_run), dictionary, _config)


def answers(run: Run, config: SteerConfig) -> Answers:
    """How the next token answers, at the strengths asked for and on a grid around them.

    Raises:
        UserError: a latent that does not exist or never fired, or positions that the text does not reach.
    """
    key = config.model_dump_json(exclude=SAMPLING)
    return _answers(run, config, f"{model.version(run)} {run.has_index} {key}")


@st.cache_resource(max_entries=ANSWERED, show_spinner="Turning it up…")
def _answers(_run: Run, _config: SteerConfig, key: str) -> Answers:
    import torch

    from saelab.steering.response import next_logits, strength_grid
    from saelab.steering.steer import check_reached, prompt_ids

    language_model = model.language_model(_run)
    prompt = prompt_ids(language_model, _config.prompt)
    check_reached(_config, len(prompt))
    grid: list[float | None] = [None] if _config.mode == "zero" else list(strength_grid(_config.strength))
    logits = next_logits(
        language_model,
        model.dictionary(_run),
        prompt,
        [[], *(_config.edits(strength) for strength in grid)],
        method=_config.method,
        units=units(_run, _config),
        positions=_config.positions,
    )
    precision = max(30 * torch.finfo(torch.float32).eps, torch.finfo(language_model.dtype).eps)
    return Answers(grid, logits[0], logits[1:], precision * float(logits[0].abs().max()))
