"""The suite: one model, its circuit, and every family of dictionaries in every cross-section."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor

import saelab
from saelab.errors import UserError
from saelab.evaluation.ioi.behaviour import behaviour
from saelab.evaluation.ioi.bench import Bench
from saelab.evaluation.ioi.circuit import QUERIES_AND_KEYS, is_gpt2_small
from saelab.evaluation.ioi.config import IoiSettings, TaskSaeConfig
from saelab.evaluation.ioi.families import Family, pca_family, task_family
from saelab.evaluation.ioi.features import Features, of_dictionary
from saelab.evaluation.ioi.nodes import CrossSection, Node, Outcome, outcome
from saelab.evaluation.ioi.phenomena import ALPHAS, occlusion
from saelab.evaluation.ioi.published import compare
from saelab.evaluation.ioi.report import (
    About,
    BehaviourPart,
    CircuitPart,
    HeatMap,
    IoiReport,
    OcclusionPart,
    SectionPart,
)
from saelab.evaluation.ioi.section import SectionTest
from saelab.evaluation.ioi.task import Prompts
from saelab.evaluation.ioi.task_saes import train_on, training_of
from saelab.evaluation.ioi.vocabulary import Names
from saelab.evaluation.shown import shown
from saelab.models import LanguageModel
from saelab.progress import track
from saelab.ranks.axis import Axis
from saelab.training.config import Preset

OTHERS: Final = 500
"""Prompts with the names that the suite does not use, whose answers are reported too."""
_HALVES: Final[tuple[Names, ...]] = ("train", "test")
FROZEN: Final[Preset] = "topk"
"""The architecture whose decoder the sanity baseline freezes."""


class Suite:
    """A bench, and the reports of what was tested on it.

    Args:
        axis: ranks that share the tests: all call the same methods with the same arguments, and get the same.
    """

    def __init__(self, model: LanguageModel, settings: IoiSettings, axis: Axis | None = None) -> None:
        self.started = time.monotonic()
        self.bench = Bench(model, settings, axis)

    def cross_sections(self) -> tuple[CrossSection, ...]:
        """The circuit's.

        Raises:
            UserError: no role has a head.
        """
        found = self.bench.circuit.cross_sections(self.bench.model)
        found = [section for section in found if self.bench.settings.keys or section.name != QUERIES_AND_KEYS]
        if not found:
            raise UserError(f"no head of {self.bench.model.name} has a role in the task by these thresholds")
        return tuple(found)

    def test(
        self,
        given: Mapping[CrossSection, Sequence[Family]],
        train: Sequence[Preset] = (),
        sizes: TaskSaeConfig | None = None,
    ) -> tuple[list[SectionPart], list[Family]]:
        """Every family at every cross-section, the supervised ones and the baselines first.

        Args:
            given: finished dictionaries, which cover all nodes of their cross-section.
            train: architectures to train on the task, at the cross-sections through which an attribute passes.

        Returns:
            The findings, and the families that were made for them.
        """
        self.bench.read({node for section in given for node in section.nodes})
        tests = [SectionTest(self.bench, section) for section in given]
        edited = {node for test in tests if test.carried for node in test.section.nodes}
        shared = self._train(sorted(edited), train, sizes or TaskSaeConfig())
        sections: list[SectionPart] = []
        for test, families in zip(tests, given.values(), strict=True):
            nodes = test.section.nodes
            baseline = pca_family(self.bench, nodes, self.bench.settings.components)
            at = [family.at(nodes) for family in shared] if test.carried else []
            all_families = [*test.supervised, baseline, *at, *families]
            with shown(self.bench.axis, len(all_families), f"testing {test.section.name}", "dictionaries") as bar:
                sections.append(test.report(all_families, bar))
        return sections, [*shared, *(family for test in tests for family in test.supervised)]

    def _train(self, nodes: Sequence[Node], presets: Sequence[Preset], sizes: TaskSaeConfig) -> list[Family]:
        if not presets:
            return []
        with track(len(nodes) * (len(presets) + 1), "training", "dictionaries") as bar:
            frozen = task_family(self.bench, nodes, FROZEN, sizes, bar, frozen_decoder=True)
            return [frozen, *(task_family(self.bench, nodes, preset, sizes, bar) for preset in presets)]

    def occlusion(self, section: CrossSection, preset: Preset, sizes: TaskSaeConfig) -> list[OcclusionPart]:
        """Dictionaries trained on `a − α·u_IO`, at the node of a cross-section whose activations vary most with IO."""
        known, found = self.bench.read(section.nodes), SectionTest(self.bench, section).best.supervised
        n_names = len(self.bench.fit.names)
        node = max(found, key=lambda at: float(found[at].vectors[:n_names].square().sum()))
        origin = self.bench.origin(node)
        config = training_of(preset, sizes, origin, self.bench.settings.seed)
        with track(len(ALPHAS), "occlusion", "dictionaries") as bar:

            def train(x: Float[Tensor, "n d"]) -> Features:
                bar.advance(1)
                return of_dictionary(preset, train_on(x, config, origin))

            parts = occlusion(known[node].fit, self.bench.fit, found[node], train)
        return [
            OcclusionPart(section=section.name, node=str(node), architecture=preset, alpha=p.alpha, named={**p.named})
            for p in parts
        ]

    def report(
        self,
        sections: Sequence[SectionPart],
        occluded: Sequence[OcclusionPart] = (),
        dictionaries: Mapping[str, str] | None = None,
    ) -> IoiReport:
        """Everything that was found."""
        answers = list(self._behaviour())
        circuit, model = self.bench.circuit, self.bench.model
        comparable = is_gpt2_small(model)
        return IoiReport(
            about=self._about(dictionaries or {}),
            behaviour=answers,
            circuit=CircuitPart(
                source=circuit.source,
                heads={role: [f"{layer}.{head}" for layer, head in heads] for role, heads in circuit.heads.items()},
                maps=[HeatMap(title=title, values=scores.tolist()) for title, scores in circuit.scores.items()],
            ),
            sections=list(sections),
            occlusion=list(occluded),
            published=list(compare(answers, sections)) if comparable else [],
        )

    def _behaviour(self) -> Iterator[BehaviourPart]:
        settings = self.bench.settings
        answered: dict[Names, tuple[Prompts, Outcome]] = {settings.names: (self.bench.test, self.bench.answers)}
        for names in _HALVES:
            if names == settings.names:
                continue
            others = self.bench.others(names, min(OTHERS, settings.test_prompts))
            answered[names] = (others, outcome(self.bench.model, others))
        for names, (prompts, answers) in answered.items():
            for found in behaviour(prompts, answers):
                yield BehaviourPart(names=names, **found._asdict())

    def _about(self, dictionaries: Mapping[str, str]) -> About:
        model = self.bench.model
        words: dict[str, Any] = {
            f"{kind}, {split}": tuple(kept)
            for split, counts in self.bench.words.items()
            for kind, kept in counts.items()
            if kind != "names" or split == "train"
        }
        return About(
            model=model.name, model_revision=model.revision, model_fingerprint=model.fingerprint,
            dtype=str(model.dtype).removeprefix("torch."), device=str(model.device), words=words,
            dictionaries=dict(dictionaries), settings=self.bench.settings.model_dump(mode="json"),
            seconds=round(time.monotonic() - self.started, 1),
            created=datetime.now(UTC).isoformat(timespec="seconds"), saelab_version=saelab.__version__,
        )  # fmt: skip
