"""The two commands: `saelab ioi MODEL`, and `saelab evaluate RUN... --suite ioi`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saelab.config import differences, to_yaml
from saelab.dictionaries.artifact import load, write
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, staged_directory, write_text
from saelab.errors import UserError
from saelab.evaluation.ioi.config import IoiConfig, IoiSettings, JudgeConfig
from saelab.evaluation.ioi.families import Family, given_family
from saelab.evaluation.ioi.html import html
from saelab.evaluation.ioi.nodes import CrossSection, Node
from saelab.evaluation.ioi.report import IoiReport, Kind
from saelab.evaluation.ioi.suite import Suite
from saelab.evaluation.report import load_report
from saelab.models import LanguageModel, Site
from saelab.ranks import Ranks
from saelab.ranks.agreement import agree_on
from saelab.ranks.mesh import Mesh, meshed
from saelab.training.origin import check_fit, recorded

GOLDEN = 8  # inputs whose codes are saved with a dictionary
ROLES = ("END", "S2")
"""Where a dictionary is tested whose site is none of the circuit's."""


def ioi(config: IoiConfig, directory: Path, model: LanguageModel | None = None) -> IoiReport:
    """Test supervised dictionaries, and those to be trained, on every cross-section of a model.

    Writes ioi.json, ioi.html and dictionaries/ to `directory`. A report that is there with the same settings is read.

    Raises:
        UserError: the model does not do the task, or a report exists that was made with other settings.
    """
    paths = _ReportPaths(directory)
    model = model or LanguageModel.load(config.model, dtype=config.dtype, device=config.device)
    sizes = ", ".join(f"{name} {value}" for name, value in config.sae.model_dump().items())
    trained: dict[str, str] = dict.fromkeys(config.train, f"trained here: {sizes}")
    expected = _conditions(config, model) | {"dictionaries": trained}
    if (found := _finished(paths.json, expected, config.overwrite)) is not None:
        return found
    suite = Suite(model, _settings(config))
    sections = suite.cross_sections()
    parts, made = suite.test(dict.fromkeys(sections, ()), config.train, config.sae)
    occluded = suite.occlusion(sections[0], config.train[0], config.sae) if config.train else []
    report = suite.report(parts, occluded, trained)
    _save_dictionaries(directory / "dictionaries", made, suite)
    paths.write(report)
    return report


def judge(config: JudgeConfig, model: LanguageModel | None = None, ranks: Ranks | None = None) -> list[IoiReport]:
    """The suite on finished dictionaries; one report for each model, which every run of that model is given.

    Dictionaries of one kind at different sites are one family. At a site of the circuit they are tested in its
    cross-sections, as far as they cover these; at any other site at END and at S2.

    Args:
        ranks: the processes that share the tests; each calls this with the same arguments. The first one writes.

    Raises:
        UserError: a run is not one, does not fit its model, is a transcoder, or has a report with other settings; a
            rank differs or died.
    """
    by_model: dict[str, list[_Given]] = {}
    for run in config.runs:
        given = _Given.of(run)
        by_model.setdefault(config.model or given.dictionary.model_name, []).append(given)
    ranks = ranks or Ranks()
    with meshed(ranks, ranks.size, 1) as mesh:
        return [_judge(config, name, given, model, mesh) for name, given in by_model.items()]


def _judge(
    config: JudgeConfig, name: str, given: Sequence[_Given], model: LanguageModel | None, mesh: Mesh
) -> IoiReport:
    ranks = mesh.ranks
    model = model or LanguageModel.load(name, dtype=config.dtype, device=ranks.device(config.device))
    for one in given:
        check_fit(str(one.run), one.dictionary.config, one.site, model)
    checksums = {str(one.run): one.dictionary.config.weights_sha256 for one in given}
    expected = _conditions(config, model) | {"dictionaries": checksums}
    paths = [_ReportPaths(RunPaths(one.run).evaluation) for one in given]
    found = [_finished(path.json, expected, config.overwrite) for path in paths]
    finished = [report is not None for report in found]
    device = {"device": model.device.type, "threads": torch.get_num_threads()}
    agree_on(ranks, {**expected, **device, "finished": finished})
    if found[0] is not None and all(finished):
        return found[0]
    suite = Suite(model, _settings(config), mesh.world)
    parts, _ = suite.test(_placed(_families(given), suite.cross_sections()))
    report = suite.report(parts, dictionaries=checksums)
    if ranks.first:
        for path in paths:
            path.write(report)
    ranks.gather("written")
    return report


class _ReportPaths(NamedTuple):
    root: Path

    @property
    def json(self) -> Path:
        return self.root / "ioi.json"

    def write(self, report: IoiReport) -> None:
        """The page first: who finds the JSON finds everything."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_text(self.root / "ioi.html", html(report))
        report.save(self.json)


class _Given(NamedTuple):
    """A finished dictionary."""

    run: Path
    dictionary: Dictionary
    site: Site
    kind: Kind

    @classmethod
    def of(cls, run: Path) -> _Given:
        dictionary = load(run)
        corpus = recorded(run).corpus
        if dictionary.config.kind == "supervised":
            kind: Kind = "supervised"
        else:
            kind = "given" if corpus is None else "task" if corpus.source == "ioi" else "full-distribution"
        return cls(run, dictionary, Site.parse(dictionary.site), kind)

    @property
    def family(self) -> str:
        """Dictionaries of equal name belong together."""
        config = self.dictionary.config
        return f"{self.kind} {config.architecture}, {config.d_sae} latents, k = {config.k}"


def _families(given: Iterable[_Given]) -> list[tuple[str, Kind, dict[Site, Dictionary]]]:
    """Dictionaries that belong together, by site; a second one at a site begins a family of its own."""
    found: list[tuple[str, Kind, dict[Site, Dictionary]]] = []
    for one in given:
        family = next((f for f in found if f[0] == one.family and one.site not in f[2]), None)
        if family is None:
            family = (one.family, one.kind, {})
            found.append(family)
        family[2][one.site] = one.dictionary
    return found


def _placed(
    families: Sequence[tuple[str, Kind, dict[Site, Dictionary]]], sections: Sequence[CrossSection]
) -> dict[CrossSection, list[Family]]:
    """Every family at the cross-sections, or the parts of them, that it covers."""
    placed: dict[CrossSection, list[Family]] = {}
    circuit = {node.site for section in sections for node in section.nodes}
    for name, kind, at in families:
        wanted = [_covered(section, at) for section in sections]
        others = [Node(site, role) for site in at for role in ROLES if site not in circuit]
        wanted += [CrossSection(str(node), (node,)) for node in others]
        for section in filter(None, wanted):
            dictionaries = {node: at[node.site] for node in section.nodes}
            placed.setdefault(section, []).append(given_family(name, kind, dictionaries))
    return placed


def _covered(section: CrossSection, sites: Iterable[Site]) -> CrossSection | None:
    """The part of a cross-section at these sites."""
    nodes = tuple(node for node in section.nodes if node.site in set(sites))
    if not nodes or nodes == section.nodes:
        return section if nodes else None
    return CrossSection(f"{section.name}, {len(nodes)} of {len(section.nodes)} nodes", nodes)


def _settings(config: IoiSettings) -> IoiSettings:
    return IoiSettings.model_validate(config.model_dump(include=set(IoiSettings.model_fields)))


def _conditions(config: IoiSettings, model: LanguageModel) -> dict[str, Any]:
    return {
        "settings": _settings(config).model_dump(mode="json"),
        "model_fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def _finished(path: Path, expected: Mapping[str, Any], overwrite: bool) -> IoiReport | None:
    """The report that is there; one that was made with other settings is refused."""
    if overwrite or not path.exists():
        return None
    report = load_report(IoiReport, path)
    changes = differences(report.about.model_dump(mode="json", include=set(expected)), expected)
    if changes:
        raise UserError(
            f"{path} was made with other settings ({'; '.join(changes[:3])}); add --overwrite to replace it"
        )
    return report


def _save_dictionaries(root: Path, families: Iterable[Family], suite: Suite) -> None:
    """All as runs, `root/<family>/<site>-<role>/dictionary`, in one step; what was there is replaced."""
    runs = {
        f"{re.sub(r'[^a-z0-9]+', '-', family.name.lower())}/{node.site}-{node.role}": (family, node)
        for family in families
        for node in family.dictionaries
    }
    with staged_directory(root, replace=True) as staging:
        for name, (family, node) in runs.items():
            run = RunPaths(staging / name)
            run.dictionary.mkdir(parents=True)
            write(family.dictionaries[node], run.dictionary, suite.bench.read([node])[node].fit[:GOLDEN])
            if node in family.trainings:
                write_text(run.config, to_yaml(family.trainings[node]))
