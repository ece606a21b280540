"""Everything an index is made from, resolved before work begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.activations.forward import tokenizer_of
from saelab.config import build
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.corpora.config import GENERATED
from saelab.dictionaries.artifact import load
from saelab.dictionaries.config import Group, GroupChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths
from saelab.features.config import IndexConfig
from saelab.features.schema import QUARTERS, SCHEMA_VERSION
from saelab.features.summaries import Sampling
from saelab.models import LanguageModel, Site
from saelab.training.origin import check_fit, recorded_corpus, written_sites

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WRITING_KINDS = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out")
"""Sites whose vectors are added to the residual stream, so that the unembedding can read a latent's direction."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is indexed, and how; the model is loaded when it is first asked for.

    Attributes:
        given_model: a model that is loaded already, else the dictionary's own is loaded.
    """

    config: IndexConfig
    dictionary: Dictionary
    corpus: CorpusConfig
    policy: TokenPolicy
    given_model: LanguageModel | None = None

    @classmethod
    def resolve(cls, config: IndexConfig, model: LanguageModel | None = None) -> Plan:
        """Load the dictionary and find out which text it is indexed on.

        Raises:
            UserError: no dictionary there, or no corpus given and none recorded with the run.
        """
        dictionary = load(config.run)
        policy = build(TokenPolicy, dictionary.config.policy, where=f"the token policy of {config.run}")
        return cls(config, dictionary, config.corpus or recorded_corpus(config.run), policy, model)

    @property
    def out(self) -> Path:
        return self.config.out or RunPaths(self.config.run).features

    @cached_property
    def model(self) -> LanguageModel:
        """The language model, checked against what the dictionary was trained on."""
        name = self.config.model or self.dictionary.model_name
        model = self.given_model or LanguageModel.load(name, dtype=self.config.dtype, device=self.config.device)
        check_fit(str(self.config.run), self.dictionary.config, self.site, model)
        return model

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return tokenizer_of(self.model)

    @cached_property
    def encoder(self) -> Dictionary:
        """The dictionary on the model's device."""
        return self.dictionary.to(self.model.device)

    @cached_property
    def site(self) -> Site:
        return Site.parse(self.dictionary.site)

    @property
    def why_no_logits(self) -> str | None:
        """Why the unembedding can't read the latents' directions; None where it can."""
        site, *others = written_sites(self.dictionary.config)
        if others:
            return f"the dictionary writes to {1 + len(others)} sites, so its directions have no logits of their own"
        if site.kind not in WRITING_KINDS:
            return f"{site} does not lie in the residual stream, so its directions have no logits of their own"
        return None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that the corpus's tokens carry; () where it has none."""
        if self.corpus.source not in GENERATED:
            return ()
        from saelab.corpora.microworld import LABELS

        return tuple(LABELS)

    @property
    def groups(self) -> tuple[Group, ...]:
        """What each latent of a supervised dictionary stands for, in the order of its latents; () for others."""
        allocation = self.dictionary.config.allocation
        return allocation.groups if isinstance(allocation, GroupChoice) else ()

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.config.top_examples, self.config.quarter_examples, self.config.seed)

    @property
    def pair_stride(self) -> int:
        """Pairs are counted on every n-th row of text, so that about `coactivation_pairs` are; 0 = on none."""
        if not self.config.coactivation_pairs:
            return 0
        return math.ceil(self.config.tokens * self.dictionary.config.k**2 / self.config.coactivation_pairs)

    @property
    def bytes_needed(self) -> int:
        """About how much the spill and the finished tables take together, at their largest."""
        activations = self.config.tokens * self.dictionary.config.k
        examples = self.dictionary.d_sae * (self.config.top_examples + QUARTERS * self.config.quarter_examples)
        # Per activation 12 bytes of spill, about 8 in its table and 12 in the search by token; per example about 60.
        return 32 * activations + 12 * self.config.coactivation_pairs + 60 * examples

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the index's content: equal settings, equal index."""
        keys = ("tokens", "seed", "top_examples", "quarter_examples", "coactivation_pairs", "effect_tokens")
        return {
            "schema_version": SCHEMA_VERSION,
            "dictionary_sha256": self.dictionary.config.weights_sha256,
            "corpus": self.corpus.model_dump(mode="json"),
            "policy": self.policy.model_dump(mode="json"),
            **{key: getattr(self.config, key) for key in keys},
        }
