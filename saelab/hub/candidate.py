"""A finished run as it would be published: checked, and with what must be said about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saelab.activations.manifest import Manifest
from saelab.config import build, read_yaml
from saelab.corpora.config import DEMO
from saelab.dictionaries import artifact
from saelab.dictionaries.config import DictionaryConfig
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, read_json
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.hub.described import known_report
from saelab.hub.privacy import is_machine_path, without_machine_paths


@dataclass(frozen=True)
class Candidate:
    """What of one run goes out."""

    id: str
    """`<site>/<name>`: its folder in the repository."""
    run: RunPaths
    files: DictionaryPaths
    dictionary: Dictionary
    """Its settings are those that go out: without paths of this machine."""
    base_model: str | None
    """The language model's name on the Hub; None where it is a folder of this machine, or the demo's."""
    training: dict[str, Any] | None
    """Settings that replay the training; None where the run has none."""
    reports: dict[str, dict[str, Any]]
    """Suite → report, as JSON."""
    notes: tuple[str, ...]
    """What was cut or replaced on the way out."""
    objections: tuple[str, ...]
    """What speaks against publishing it; only `--force` gets past these."""


def candidate(path: Path, base_model: str | None = None) -> Candidate:
    """Load a run (or a dictionary's folder), checking weights, shapes and golden pair, and read its reports.

    Args:
        base_model: name of the language model on the Hub, in place of the one that the dictionary records.

    Raises:
        UserError: it is no finished run, is damaged, or fails its golden check.
    """
    dictionary = artifact.load(path)
    run = RunPaths(path.parent if path.resolve() == RunPaths(path.resolve().parent).dictionary else path)
    inside = DictionaryPaths(run.dictionary)
    files = inside if inside.weights.is_file() else DictionaryPaths(run.root)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run.root.resolve().name).strip("-.")
    reports, notes, objections = _reports(run, dictionary.config)
    config, cut = _public_config(files, base_model)
    if files.trained_thresholds.is_file():
        cut.append("thresholds were calibrated after training (`saelab calibrate`); those of training were left out")
    training, changed = _training(run, base_model)
    return Candidate(
        f"{dictionary.site}/{name}", run, files, replace(dictionary, config=config),
        base_model or _on_the_hub(dictionary.model_name), training, reports,
        (*cut, *changed, *notes), tuple(objections),
    )  # fmt: skip


def _on_the_hub(model: str) -> str | None:
    local = model == DEMO or is_machine_path(model) or Path(model).exists() or model.count("/") > 1
    return None if local else model


def _public_config(files: DictionaryPaths, base_model: str | None) -> tuple[DictionaryConfig, list[str]]:
    content = read_json(files.config)
    if base_model is not None:
        content["model"] = base_model
    content, cut = without_machine_paths(content)
    config = build(DictionaryConfig, content, where=str(files.config))
    return config, [f"config.json: the local path in {key} was cut to its last part" for key in cut]


def _reports(run: RunPaths, config: DictionaryConfig) -> tuple[dict[str, dict[str, Any]], list[str], list[str]]:
    """Reports that are about these very weights, notes, and objections."""
    reports: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    objections: list[str] = []
    for file in sorted(run.evaluation.glob("*.json")):
        content = read_json(file)
        about = content.get("about") if isinstance(content, dict) else None
        measured = about.get("dictionary_sha256") if isinstance(about, dict) else None
        if measured is not None and measured != config.weights_sha256:
            objections.append(
                f"{file.name} was measured on other weights, so it was left out "
                f"(`saelab evaluate {run.root.name} --overwrite` measures again)"
            )
            continue
        known_report(file)
        reports[file.stem], cut = without_machine_paths(content)
        notes += [f"evaluation/{file.name}: the local path in {key} was cut to its last part" for key in cut]
    if "fidelity" not in reports:
        objections.append(f"it has no evaluation (`saelab evaluate {run.root.name}` makes one)")
    return reports, notes, objections


def _training(run: RunPaths, base_model: str | None) -> tuple[dict[str, Any] | None, list[str]]:
    """The run's settings as they replay anywhere; harvested activations give way to the text they were made of."""
    if not run.config.is_file():
        return None, ["no settings of its training are known"]
    settings, notes = read_yaml(run.config), []
    if settings.get("activations"):
        folder = Path(str(settings["activations"]))
        try:
            harvest = Manifest.load(folder).config.model_dump(mode="json")
        except UserError:
            harvest = {}
        settings |= {"activations": None}
        settings |= {key: harvest[key] for key in ("corpus", "policy", "model") if key in harvest}
        notes.append(
            "config.yaml: it was trained on activations harvested before; here the model reads the same text as it goes"
            if harvest
            else "config.yaml: it was trained on activations that are gone; which text they came from is not known"
        )
    if base_model is not None:
        settings["model"] = base_model
    settings, cut = without_machine_paths(settings)
    return settings, notes + [f"config.yaml: the local path in {key} was cut to its last part" for key in cut]
