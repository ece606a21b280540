"""The bench on which all dictionaries of one model are tested: prompts, counterfactuals, circuit, activations, runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.forward import tokenizer_of
from saelab.activations.source import Origin
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.evaluation.ioi.circuit import Circuit, find, is_gpt2_small, published
from saelab.evaluation.ioi.config import IoiSettings
from saelab.evaluation.ioi.nodes import Node, Outcome, activations_at, batches, joined, outcome
from saelab.evaluation.ioi.patching import CleanRun
from saelab.evaluation.ioi.task import ATTRIBUTES, Attribute, Prompts, task
from saelab.evaluation.ioi.vocabulary import Names, Vocabulary
from saelab.evaluation.shown import shown
from saelab.models import LanguageModel
from saelab.ranks.axis import Axis

_STEP = 500  # prompts between two signs of life


@dataclass(frozen=True, eq=False)
class NodeActivations:
    """What is known of one node, fp32: on the fit prompts, the test prompts, and the counterfactuals of the patched."""

    fit: Float[Tensor, "fit d"]
    test: Float[Tensor, "test d"]
    counterfactual: Mapping[Attribute, Float[Tensor, "patched d"]]

    @cached_property
    def mean(self) -> Float[Tensor, "d"]:
        """E[a], over the fit prompts."""
        return self.fit.double().mean(0).to(self.fit)


class Bench:
    """Everything that tests of different dictionaries share.

    Attributes:
        fit: prompts that dictionaries are fitted to.  test: those they are judged on.
        patched: the first of `test`, which the model is run on with patches.
        counterfactuals: of `patched`, one attribute changed.

    Args:
        axis: ranks that share the tests; each has a bench of its own.
    """

    def __init__(self, model: LanguageModel, settings: IoiSettings, axis: Axis | None = None) -> None:
        self.model, self.settings, self.axis = model, settings, axis or Axis()
        tokenizer = tokenizer_of(model)
        options = {"names": settings.names, "bos": settings.bos}
        seed = settings.seed
        self.words = {split: Vocabulary.of(tokenizer, split, settings.names).counts for split in ("train", "test")}
        self.fit = task(tokenizer, "train", settings.fit_prompts, seed, settings.fit_templates, **options)
        self.test = task(tokenizer, "test", settings.test_prompts, seed + 1, settings.test_templates, **options)
        self.patched = self.test[: settings.patched_prompts]
        generator = torch.Generator().manual_seed(seed + 2)
        self.counterfactuals: dict[Attribute, Prompts] = {
            attribute: self.patched.counterfactual([attribute], generator) for attribute in ATTRIBUTES
        }
        self._known: dict[Node, NodeActivations] = {}
        self._runs: dict[frozenset[str], CleanRun] = {}

    def others(self, names: Names, n: int) -> Prompts:
        """Test prompts with another half of the names."""
        settings = self.settings
        return task(
            tokenizer_of(self.model), "test", n, settings.seed + 1, settings.test_templates, names, settings.bos
        )

    @cached_property
    def circuit(self) -> Circuit:
        """Published or found, as the settings have it."""
        wanted = self.settings.circuit
        if wanted == "published" or (wanted == "auto" and is_gpt2_small(self.model)):
            return published(self.model)
        settings = self.settings
        return find(self.model, self.fit[: settings.search_prompts], settings.threshold, settings.floor, self.axis)

    @cached_property
    def answers(self) -> Outcome:
        """To the test prompts, untouched."""
        parts: list[Outcome] = []
        with shown(self.axis, len(self.test), "answering", "prompts") as bar:
            for some in batches(self.test, _STEP):
                parts.append(outcome(self.model, some))
                bar.advance(len(some))
        return joined(parts)

    def read(self, nodes: Iterable[Node]) -> dict[Node, NodeActivations]:
        """Activations of some nodes; those that nobody has asked for before are read in one pass."""
        nodes = tuple(nodes)
        missing = [node for node in nodes if node not in self._known]
        if missing:
            total = len(self.fit) + len(self.test) + 3 * len(self.patched)
            with shown(self.axis, total, "reading nodes", "prompts") as bar:

                def read(prompts: Prompts) -> dict[Node, Tensor]:
                    parts: list[dict[Node, Tensor]] = []
                    for some in batches(prompts, _STEP):
                        parts.append(activations_at(self.model, some, missing))
                        bar.advance(len(some))
                    return {node: torch.cat([part[node] for part in parts]) for node in missing}

                fit, test = read(self.fit), read(self.test)
                other: dict[Attribute, dict[Node, Tensor]] = {
                    attribute: read(prompts) for attribute, prompts in self.counterfactuals.items()
                }
            for node in missing:
                changed: dict[Attribute, Tensor] = {attribute: other[attribute][node] for attribute in ATTRIBUTES}
                self._known[node] = NodeActivations(fit[node], test[node], changed)
        return {node: self._known[node] for node in nodes}

    def run(self, nodes: Iterable[Node]) -> CleanRun:
        """The patched prompts, ready for patches at these nodes."""
        roles = frozenset(node.role for node in nodes)
        if roles not in self._runs:
            self._runs[roles] = CleanRun(self.model, self.patched, roles)
        return self._runs[roles]

    def origin(self, node: Node) -> Origin:
        """What a dictionary trained on this node's activations says of them."""
        context = self.fit.ids.shape[1] + 1  # and the answer
        policy = TokenPolicy(context=context, bos=self.settings.bos, cross_documents=False, pad=True)
        return Origin(
            self.model.name, self.model.revision, self.model.fingerprint, self.model.tokenizer_fingerprint or "",
            str(node.site), (), CorpusConfig(source="ioi", seed=self.settings.seed), policy,
        )  # fmt: skip
