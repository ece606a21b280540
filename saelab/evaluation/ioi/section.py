"""All tests of all dictionaries in one cross-section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelab.evaluation.found import of_text, text_of
from saelab.evaluation.ioi.approximation import Reference, approximate
from saelab.evaluation.ioi.bench import Bench
from saelab.evaluation.ioi.control import agreement, control
from saelab.evaluation.ioi.edits import EditPath, greedy_path, guided_path
from saelab.evaluation.ioi.estimates import means
from saelab.evaluation.ioi.families import REFERENCE, Family, supervised_families
from saelab.evaluation.ioi.features import Features
from saelab.evaluation.ioi.interpretability import above_thresholds
from saelab.evaluation.ioi.nodes import CrossSection, Node, Outcome
from saelab.evaluation.ioi.phenomena import named_share, splitting
from saelab.evaluation.ioi.properties import PropertyTable
from saelab.evaluation.ioi.report import (
    AbovePart,
    AttributePart,
    ControlPart,
    DictionaryPart,
    EditPart,
    MeaningPart,
    Measured,
    NodePart,
    SectionPart,
    Way,
)
from saelab.evaluation.ioi.supervised import POSITIONS
from saelab.evaluation.ioi.task import ATTRIBUTES, Attribute
from saelab.kernels.codes import SparseCodes
from saelab.progress import Bar
from saelab.ranks.turns import in_turns

Tables = Mapping[Node, PropertyTable]
"""F1 on the fit prompts; of families whose latents mean something."""
F1_BINS = 20
BEST = 10  # latents of a node that the report describes


class SectionTest:
    """A cross-section on the bench.

    Attributes:
        supervised: its supervised families.  best: the one that edits of all others are compared with.
        carried: the attributes whose true patch changes enough answers.
    """

    def __init__(self, bench: Bench, section: CrossSection) -> None:
        self.bench, self.section = bench, section
        self.supervised = list(supervised_families(bench, section.nodes))
        self.best = next(family for family in self.supervised if family.name == REFERENCE)
        self.known = bench.read(section.nodes)
        self.run = bench.run(section.nodes).outcome
        n = len(bench.patched)
        self.clean = Outcome(bench.answers.predicted[:n], bench.answers.logit_difference[:n])
        self.patched = {node: known.test[:n] for node, known in self.known.items()}
        self.reference = Reference.of(
            self.run, self.patched, {node: known.mean for node, known in self.known.items()}, self.clean
        )
        self.true = {attribute: self.run(self._counterfactual(attribute)) for attribute in ATTRIBUTES}
        self.no_edit = {attribute: self.clean.predicted == true.predicted for attribute, true in self.true.items()}
        changed = {attribute: 1 - float(same.double().mean()) for attribute, same in self.no_edit.items()}
        self.carried: list[Attribute] = [name for name in ATTRIBUTES if changed[name] >= bench.settings.carried]
        self.matched: dict[Attribute, Bool[Tensor, "n"]] = {
            attribute: agreement(self.run, self._supervised_edits(attribute), self.true[attribute])
            for attribute in self.carried
        }

    def report(self, families: Sequence[Family], bar: Bar) -> SectionPart:
        """Test the families one after the other, in turns where there are several ranks."""

        def work(family: Family) -> dict[str, Tensor]:
            return {"part": of_text(self.test(family).model_dump_json())}

        parts: list[DictionaryPart] = []
        for found in in_turns(self.bench.axis, families, work, "tests", everywhere=True):
            parts.append(DictionaryPart.model_validate_json(text_of(found["part"])))
            bar.advance(1, parts[-1].name)
        return SectionPart(
            name=self.section.name,
            nodes=[str(node) for node in self.section.nodes],
            ablated=float(self.reference.ablated.logit_difference.double().mean()),
            attributes=[self._attribute(attribute) for attribute in ATTRIBUTES],
            dictionaries=parts,
        )

    def test(self, family: Family) -> DictionaryPart:
        """All three tests of one family."""
        prompts, settings = self.bench.patched, self.bench.settings
        codes = {node: of.encode(self.patched[node], prompts) for node, of in family.features.items()}
        hats = {node: family.features[node].reconstruct(codes[node]) for node in codes}
        approximation = approximate(self.run, hats, self.reference, settings.resamples, settings.seed)
        read = family.features if family.is_interpretable else {}
        fitted = {node: self._table(of, node) for node, of in read.items()}
        return DictionaryPart(
            name=family.name, kind=family.kind,
            sufficiency=Measured.of(approximation.sufficiency), necessity=Measured.of(approximation.necessity),
            control=list(self._control(family, codes, fitted)), above=list(self._above(family, codes, fitted)),
            nodes=[self._node(of, node) for node, of in family.features.items()],
        )  # fmt: skip

    def _control(self, family: Family, codes: Mapping[Node, SparseCodes], tables: Tables) -> Iterator[ControlPart]:
        settings = self.bench.settings
        ways: tuple[Way, ...] = ("agnostic", "guided") if family.is_interpretable else ("agnostic",)
        for attribute in self.carried:
            for way in ("supervised",) if family.supervised else ways:
                paths = {node: self._path(family, node, attribute, way, codes[node], tables) for node in codes}
                found = control(
                    self.run, paths, self.clean, self.true[attribute], settings.budgets, self.matched[attribute],
                    settings.resamples, settings.seed,
                )  # fmt: skip
                edits = [
                    EditPart(
                        k=score.k, accuracy=Measured.of(score.accuracy), normalised=Measured.of(score.normalised),
                        relative=None if score.relative is None else Measured.of(score.relative),
                        magnitude=Measured.of(score.magnitude),
                    )
                    for score in found.scores
                ]  # fmt: skip
                yield ControlPart(attribute=attribute, way=way, edits=edits)

    def _path(
        self, family: Family, node: Node, attribute: Attribute, way: Way, codes: SparseCodes, tables: Tables
    ) -> EditPath:
        source, target = self.bench.patched, self.bench.counterfactuals[attribute]
        x, y, features = self.patched[node], self.known[node].counterfactual[attribute], family.features[node]
        if way == "supervised":
            return family.supervised[node].path(x, source, target)
        most, target_codes = max(self.bench.settings.budgets), features.encode(y, target)
        if way == "agnostic":
            return greedy_path(features, x, y, codes, target_codes, most)
        values = source.value(attribute), target.value(attribute)
        return guided_path(features, x, codes, target_codes, tables[node].f1[attribute], values, most)

    def _above(self, family: Family, codes: Mapping[Node, SparseCodes], tables: Tables) -> Iterator[AbovePart]:
        if not family.is_interpretable:
            return
        settings = self.bench.settings
        best = {node: table.best for node, table in tables.items()}
        for found in above_thresholds(
            self.run, family.features, codes, best, self.reference, resamples=settings.resamples, seed=settings.seed
        ):
            yield AbovePart(
                threshold=found.threshold, latents=found.latents,
                sufficiency=Measured.of(found.approximation.sufficiency),
                necessity=Measured.of(found.approximation.necessity),
            )  # fmt: skip

    def _node(self, features: Features, node: Node) -> NodePart:
        x, prompts = self.known[node].test, self.bench.test
        codes = features.encode(x, prompts)
        table = PropertyTable.of(codes, prompts)
        error = (features.reconstruct(codes) - x).double().square().sum()
        split = [splitting(codes, prompts.pos, value) for value in range(len(POSITIONS))]
        best = torch.where(table.active, table.best, -1.0)
        top = best.argsort(descending=True)[: min(BEST, int(table.active.sum()))].tolist()
        meanings = [table.meaning(latent) for latent in top]
        return NodePart(
            node=str(node), d_sae=features.n_latents, active=int(table.active.sum()),
            l0=codes.positive().nnz / len(prompts),
            fvu=float(error / (x.double() - x.double().mean(0)).square().sum()),
            named={attribute: named_share(table, attribute) for attribute in ATTRIBUTES},
            splitting={name: len(found.latents) for name, found in zip(POSITIONS, split, strict=True)},
            splitting_f1={name: max(found.f1, default=0.0) for name, found in zip(POSITIONS, split, strict=True)},
            f1_histogram=torch.histc(table.best[table.active].float(), F1_BINS, 0, 1).int().tolist(),
            best=[MeaningPart(latent=m.latent, family=m.family, values=list(m.values), f1=m.f1) for m in meanings],
        )  # fmt: skip

    def _table(self, features: Features, node: Node) -> PropertyTable:
        return PropertyTable.of(features.encode(self.known[node].fit, self.bench.fit), self.bench.fit)

    def _attribute(self, attribute: Attribute) -> AttributePart:
        settings = self.bench.settings
        found = means({"no edit": self.no_edit[attribute]}, settings.resamples, settings.seed)
        return AttributePart(
            attribute=attribute, no_edit=Measured.of(found["no edit"]), carried=attribute in self.carried,
            logit_difference=float(self.true[attribute].logit_difference.double().mean()),
        )  # fmt: skip

    def _counterfactual(self, attribute: Attribute) -> dict[Node, Float[Tensor, "n d"]]:
        return {node: known.counterfactual[attribute] for node, known in self.known.items()}

    def _supervised_edits(self, attribute: Attribute) -> dict[Node, Float[Tensor, "n d"]]:
        source, target = self.bench.patched, self.bench.counterfactuals[attribute]
        return {node: self.best.supervised[node].edit(x, source, target) for node, x in self.patched.items()}
