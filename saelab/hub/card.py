"""The model card: README.md of a repository, from what lies in its folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from saelab.corpora.config import HUB_PREFIX
from saelab.disk.layout import PublishedPaths
from saelab.evaluation.page import Cell
from saelab.evaluation.reports import AnyReport
from saelab.evaluation.tables import short, side_by_side
from saelab.hub.described import Described
from saelab.hub.limits import limits
from saelab.hub.reference import Reference
from saelab.hub.snippets import with_saelab, with_saelens, with_torch

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

_TAGS = ("saelab", "sparse-autoencoder", "dictionary-learning", "mechanistic-interpretability")
_HERE = PublishedPaths(Path())


def card(repo: str, found: Sequence[Described], license: str | None, branch: str | None) -> ModelCard:
    """The card of all dictionaries in a repository.

    Args:
        found: at least one.
        branch: where they lie, when that is not the main branch.
    """
    from huggingface_hub import ModelCard, ModelCardData

    models = list(dict.fromkeys(filter(None, (d.record.base_model for d in found))))
    datasets = list(dict.fromkeys(filter(None, map(_dataset, found))))
    one = found[0] if len(found) == 1 else None
    results = _results(one) if one else []
    data = ModelCardData(
        license=license, library_name="saelab", datasets=datasets or None,
        base_model=models[0] if len(models) == 1 else models or None,
        tags=[*_TAGS, *dict.fromkeys(d.config.architecture.replace(" × ", "-") for d in found)],
        model_name=repo if results else None, eval_results=results or None,
    )  # fmt: skip
    text = "\n\n".join(_sections(repo, found, license, branch))
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")


def _sections(repo: str, found: Sequence[Described], license: str | None, branch: str | None) -> Iterator[str]:
    kinds = list(dict.fromkeys(_kind(d) for d in found))
    several = f"{kinds[0]}s" if len(kinds) == 1 else f"dictionaries ({', '.join(kinds)})"
    models = " and ".join(dict.fromkeys(d.config.model for d in found))
    number = f"A {kinds[0]}" if len(found) == 1 else f"{len(found)} {several}"
    yield f"# {repo}"
    yield f"{number} for activations of `{models}`, made with saelab."
    yield _overview(found)
    if sum(d.fidelity is not None for d in found) > 1:
        yield f"![L0 and ΔCE of every dictionary]({_HERE.link(_HERE.overview)})"
    for described in found:
        yield from _one(repo, described, branch, alone=len(found) == 1)
    yield "## Licence"
    yield f"{license}." if license else "None was stated: ask the authors before you use it."


def _one(repo: str, described: Described, branch: str | None, alone: bool) -> Iterator[str]:
    """Everything about one dictionary; under a heading of its own where there are several."""
    level = "##" if alone else "###"
    if not alone:
        yield f"## {described.id}"
    if described.record.objections:
        yield "> **Published with --force:** " + "; ".join(described.record.objections) + "."
    yield f"{level} Load it"
    yield from _loading(Reference(repo, described.id, branch), described)
    yield f"{level} How it was trained"
    yield from _training(Reference(repo, described.id, branch), described)
    yield f"{level} Measured"
    yield from _measured(described)
    yield f"{level} Known limits"
    yield "\n".join(f"- {limit}" for limit in limits(described))


def _loading(reference: Reference, described: Described) -> Iterator[str]:
    assert reference.id is not None
    yield f"saelab (or `saelab pull {reference}` for a run folder):"
    yield _code("python", with_saelab(reference))
    copy = _HERE.link(_HERE.saelens(reference.id))
    if described.record.saelens is None and reference.revision is None:
        lost = f" ({'; '.join(described.record.saelens_lost)})" if described.record.saelens_lost else ""
        yield f"SAELens{lost}:"
        yield _code("python", with_saelens(reference.repo, copy))
    elif described.record.saelens is None:
        yield f"SAELens loads from the main branch only; a copy in its format lies in `{copy}`."
    else:
        yield f"SAELens can't load it: {described.record.saelens}."
    yield "torch alone:"
    yield _code("python", with_torch(reference, described.config))


def _training(reference: Reference, described: Described) -> Iterator[str]:
    config = described.config
    yield (
        f"{config.tokens_trained:,} tokens with saelab {config.saelab_version}, "
        f"architecture {config.architecture}, token policy {json.dumps(config.policy)}."
    )
    if described.training is not None:
        yield f"Replay: `saelab pull {reference} --out it`, then `saelab train it/config.yaml --out again`. Settings:"
        yield _code("yaml", yaml.safe_dump(described.training, sort_keys=False, allow_unicode=True).strip())
    if described.record.notes:
        yield "Changed on the way here:\n\n" + "\n".join(f"- {note}" for note in described.record.notes)


def _measured(described: Described) -> Iterator[str]:
    if not described.reports:
        yield "Nothing: it came without an evaluation."
    for report in described.reports.values():
        yield f"**{report.suite.capitalize()}**"
        yield _table(report)
    if described.sparsity is not None:
        density, l0 = (_HERE.link(_HERE.figure(described.id, name)) for name in ("density", "l0"))
        yield f"![Density of latents]({density}) ![Active latents per token]({l0})"
    if described.others:
        yield f"More reports lie in `{described.id}/evaluation/`: {', '.join(described.others)}."


def _overview(found: Sequence[Described]) -> str:
    lines = [
        "| dictionary | site | architecture | size | k | L0 | ΔCE (nats/token) | FVU | dead |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for described in found:
        config, report = described.config, described.fidelity
        numbers = [
            short(getattr(report.metrics, name)) if report else "–" for name in ("l0", "delta_ce", "fvu", "dead")
        ]
        sites = " → ".join(dict.fromkeys((config.site, *config.target_sites)))
        size = f"{config.d_in} → {config.d_sae}"
        cells = [f"`{described.id}`", sites, config.architecture, size, str(config.k), *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _table(report: AnyReport) -> str:
    """Every number of a report, its interval behind it, and what it was measured on."""
    table = side_by_side([report])
    lines = ["| | value | unit |", "|---|---|---|"]
    for row in table.cells():
        lines.append("| " + " | ".join(cell.plain for cell in [*row, Cell(""), Cell("")][:3]) + " |")
    return "\n\n".join(["\n".join(lines), *table.caption, *(f"**{warning}**" for warning in table.warnings)])


def _results(described: Described) -> list[EvalResult]:
    """The headline as the Hub's own metadata."""
    from huggingface_hub import EvalResult

    report = described.fidelity
    if report is None or report.about.corpus is None:
        return []
    source = report.about.corpus["source"].removeprefix(HUB_PREFIX)
    return [
        EvalResult(
            task_type="sparse-autoencoder", dataset_type=source, dataset_name=source,
            dataset_split=report.about.corpus["split"], metric_type=name, metric_value=value,
            metric_name=type(report.metrics).model_fields[name].title,
        )
        for name in ("l0", "delta_ce", "loss_recovered_mean", "fvu")
        if (value := getattr(report.metrics, name)) is not None
    ]  # fmt: skip


def _kind(described: Described) -> str:
    config = described.config
    if config.kind == "supervised":
        return "supervised autoencoder"
    return "sparse transcoder" if config.targets else "sparse autoencoder"


def _dataset(described: Described) -> str | None:
    """The Hub's dataset that it was trained on."""
    corpus: dict[str, Any] = (described.training or {}).get("corpus") or {}
    source = str(corpus.get("source", ""))
    name = source.removeprefix(HUB_PREFIX)
    return name if source.startswith(HUB_PREFIX) and name.count("/") == 1 else None


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
