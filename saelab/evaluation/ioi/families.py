"""Dictionaries of one kind, one for each node of a cross-section: what a row of the report's tables stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.ioi.baselines import pca
from saelab.evaluation.ioi.bench import Bench
from saelab.evaluation.ioi.config import TaskSaeConfig
from saelab.evaluation.ioi.features import Features, of_dictionary
from saelab.evaluation.ioi.nodes import Node
from saelab.evaluation.ioi.report import Kind
from saelab.evaluation.ioi.supervised import Design, Method, Parametrisation, Supervised, fit
from saelab.evaluation.ioi.task_saes import train_on, training_of
from saelab.progress import Bar
from saelab.training.config import Preset, TrainConfig

REFERENCE: Final = "supervised MSE"
"""The family that edits of all others are compared with."""
_SUPERVISED: Final[Mapping[str, tuple[Method, Parametrisation]]] = {
    "supervised mean": ("mean", "independent"),
    REFERENCE: ("mse", "independent"),
    "supervised coupled mean": ("mean", "coupled"),
    "supervised coupled MSE": ("mse", "coupled"),
}


@dataclass(frozen=True, eq=False)
class Family:
    """Dictionaries that are tested together.

    Attributes:
        features: what the tests see, by node.
        supervised: where codes are the true labels.
        dictionaries: the same as files hold them; a baseline has none.
        trainings: settings of those that were trained here.
    """

    name: str
    kind: Kind
    features: Mapping[Node, Features]
    supervised: Mapping[Node, Supervised] = field(default_factory=dict)
    dictionaries: Mapping[Node, Dictionary] = field(default_factory=dict)
    trainings: Mapping[Node, TrainConfig] = field(default_factory=dict)

    @property
    def is_interpretable(self) -> bool:
        """Whether its latents were found, and are meant to mean something one by one."""
        return bool(self.dictionaries) and not self.supervised

    def at(self, nodes: Sequence[Node]) -> Family:
        """The same family at some of its nodes."""
        parts = {
            name: {node: found[node] for node in nodes if node in found}
            for name in ("features", "supervised", "dictionaries", "trainings")
            for found in [getattr(self, name)]
        }
        return Family(self.name, self.kind, **parts)


def supervised_families(bench: Bench, nodes: Sequence[Node]) -> Iterator[Family]:
    """Mean and MSE vectors, independent and coupled."""
    known = bench.read(nodes)
    for name, (method, parametrisation) in _SUPERVISED.items():
        design = Design.of(bench.fit, parametrisation)
        found = {node: fit(design, known[node].fit, method) for node in nodes}
        yield Family(
            name, "supervised", {node: vectors.features(name) for node, vectors in found.items()}, found,
            {at: vectors.dictionary(known[at].fit, bench.fit, bench.origin(at)) for at, vectors in found.items()},
        )  # fmt: skip


def pca_family(bench: Bench, nodes: Sequence[Node], k: int) -> Family:
    """The mean and as many principal components (all, where a node has fewer dimensions)."""
    known = bench.read(nodes)
    found = {node: pca(known[node].fit, min(k, known[node].fit.shape[1])) for node in nodes}
    return Family(f"PCA-{k}", "baseline", found)


def task_family(
    bench: Bench, nodes: Sequence[Node], preset: Preset, sizes: TaskSaeConfig, bar: Bar, frozen_decoder: bool = False
) -> Family:
    """An architecture trained at every node on the fit prompts, or the sanity baseline of it."""
    known = bench.read(nodes)
    name = f"{preset}, frozen random decoder" if frozen_decoder else f"task {preset}"
    dictionaries, trainings = {}, {}
    for node in nodes:
        origin = bench.origin(node)
        trainings[node] = training_of(preset, sizes, origin, bench.settings.seed)
        dictionaries[node] = train_on(known[node].fit, trainings[node], origin, frozen_decoder)
        bar.advance(1, f"{name} at {node}")
    return given_family(name, "baseline" if frozen_decoder else "task", dictionaries, trainings)


def given_family(
    name: str,
    kind: Kind,
    dictionaries: Mapping[Node, Dictionary],
    trainings: Mapping[Node, TrainConfig] | None = None,
) -> Family:
    """Finished dictionaries.

    Raises:
        UserError: one is a transcoder.
    """
    features = {node: of_dictionary(f"{name} at {node}", dictionary) for node, dictionary in dictionaries.items()}
    return Family(name, kind, features, {}, dictionaries, trainings or {})
