"""How far latents of several dictionaries move the model when they are turned up: part of benchmarks/gradient.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.forward import tokenizer_of, without_sinks
from saelab.activations.manifest import Manifest
from saelab.corpora import TokenRows, pack
from saelab.dictionaries.artifact import load
from saelab.models import LanguageModel, Site
from saelab.steering.effect import (
    Contexts,
    effects,
    equal_strength,
    live_latents,
    own_strength,
    random_contexts,
)
from saelab.steering.steered import largest_activations

OWN, EQUAL = (1.0, 4.0), (1.0,)  # strengths: times the latent's largest activation, times the length of a step
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)  # quantiles over latents

_ROWS = 8  # that go through the model at a time

Summary = dict[str, Any]
"""Quantiles over latents at `SHARES`, and the mean KL."""


@dataclass(frozen=True)
class Steering:
    """What all dictionaries are steered on: the model, held-out text, contexts and the length of a step."""

    manifest: Manifest
    """Of the harvest that the dictionaries were trained on: whose model and, of its corpus, held-out text."""
    site: str
    n_latents: int
    n_contexts: int
    unit_tokens: int
    """Tokens of held-out text that largest activations are measured on."""

    @cached_property
    def model(self) -> LanguageModel:
        return LanguageModel.load(self.manifest.model, device="cpu")

    def rows(self, size: int) -> Iterator[TokenRows]:
        """Held-out rows, `size` at a time."""
        corpus, policy = self.manifest.config.corpus.of_split("test"), self.manifest.config.policy
        return without_sinks(self.model, policy, pack(corpus, tokenizer_of(self.model), policy, rows=size))

    def first_rows(self) -> Iterator[TokenRows]:
        """Of `unit_tokens` in all."""
        return islice(self.rows(_ROWS), -(-self.unit_tokens // (_ROWS * self.manifest.config.policy.context)))

    @cached_property
    def contexts(self) -> list[Contexts]:
        return random_contexts(self.rows(size=4), self.n_contexts)

    @cached_property
    def step(self) -> float:
        """Mean distance of an activation from the mean one."""
        site = Site.parse(self.site)
        parts = [self.model.activations(rows.ids.long(), [site])[site][rows.keep] for rows in self.first_rows()]
        x = torch.cat(parts).double()
        return float((x - x.mean(0)).norm(dim=1).mean())

    def of_run(self, run: Path, seed: int) -> dict[str, Summary]:
        """What latents of a dictionary do, by strength."""
        dictionary = load(run)
        units = largest_activations(self.model, dictionary, self.first_rows())
        latents = live_latents(units, self.n_latents, seed)
        found = {f"own ×{a:g}": self._effect(own_strength(dictionary, latents, units, a)) for a in OWN}
        return found | {
            f"equal ×{c:g}": self._effect(equal_strength(dictionary, latents, c * self.step)) for c in EQUAL
        }

    def of_random(self, seed: int) -> dict[str, Summary]:
        """What random directions do."""
        drawn = torch.randn(self.n_latents, self.model.d_model, generator=torch.Generator().manual_seed(seed))
        directions = torch.nn.functional.normalize(drawn, dim=1)
        return {f"equal ×{c:g}": self._effect(c * self.step * directions) for c in EQUAL}

    def _effect(self, vectors: Float[Tensor, "n d"]) -> Summary:
        found = effects(self.model, [Site.parse(self.site)], vectors, self.contexts)
        return {"quantiles": found.quantiles(SHARES), "mean_kl": float(found.kl.mean())}
