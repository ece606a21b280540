"""`saelab inspect PATH_OR_REPOSITORY`: what is this, what is in it, and is it whole?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from saelab.disk import ActivationPaths, RunPaths, read_json
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.dictionaries.dictionary import Dictionary
    from saelab.hub.reference import Reference

app = App(
    name="inspect",
    help_epilogue="""Examples:
  saelab inspect runs/demo                 a run, or a folder of runs: dictionary, reports, index
  saelab inspect activations/a --verify    read every shard again
  saelab inspect path/to/model             a Hugging Face model folder
  saelab inspect path/to/sae               a dictionary in another tool's format
  saelab inspect user/name[:id]            a repository on the Hub""",
)

Rows = Iterator[tuple[str, str]]
_MOST_FILES = 10_000  # looked at in a folder that is nothing of saelab's own
DAMAGED = "damaged"
"""Name of a line that is no good news."""


@app.default
def inspect(path: str, *, verify: bool = False) -> None:
    """Say what a path or a repository holds: a run, a dictionary, activations or a model folder.

    Parameters
    ----------
    path
        Directory to look into, or USER/NAME[:ID][@REVISION] on the Hub.
    verify
        Read every file and compare its checksum.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from saelab.hub.open import as_reference

    reference = as_reference(path)
    lines = describe(Path(path), verify) if reference is None else describe_repository(reference)
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(name, value)
    Console().print(table)
    if damaged := [value for name, value in lines if name == DAMAGED]:
        from saelab.activations.manifest import how_to_repair

        others = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise UserError(f"{path} is damaged: {damaged[0]}{others}; {how_to_repair(Path(path))}")


def describe(path: Path, verify: bool = False) -> list[tuple[str, str]]:
    """Name–value lines about a directory.

    Raises:
        UserError: it is nothing that saelab knows, or a damaged dictionary; damaged activations have a line `DAMAGED`
            for each file.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give a run, a dictionary, activations or a model folder")
    if ActivationPaths(path).manifest.is_file():
        return list(_activations(path, verify))
    if DictionaryPaths(path).weights.is_file():
        return list(_dictionary(path))
    if RunPaths(path).config.is_file() or RunPaths(path).dictionary.is_dir():
        return list(_run(path))
    if (path / "config.json").is_file() and "model_type" in read_json(path / "config.json"):
        return list(_model(path))
    runs = [folder for folder in sorted(path.iterdir()) if RunPaths(folder).config.is_file()]
    if runs:
        return list(_sweep(path, runs))
    return list(_foreign(path))


def describe_repository(reference: Reference) -> list[tuple[str, str]]:
    """Name–value lines about a repository: of one dictionary, everything; of several, what they are."""
    from saelab.hub.fetch import fetch
    from saelab.hub.listing import listing
    from saelab.hub.open import no_folder

    with no_folder(str(reference)):
        found = listing(reference)
    lines = [("repository", f"{found.repo} as of {found.commit}")]
    held = found.dictionaries()
    if reference.id is None and len(held) > 1:
        sizes = {one.id: f"{one.formats}, {found.size(one.files) / 1e6:.1f} MB" for one in held}
        return [*lines, *sizes.items(), ("next", f"saelab inspect {found.repo}:{held[0].id}")]
    fetched = fetch(found, reference)
    if fetched.form.name == "saelab":
        return [*lines, ("id", fetched.found.id), *_dictionary(fetched.snapshot / fetched.found.id)]
    lines += [("id", fetched.found.id), ("format", fetched.form.name)]
    return [*lines, *_sizes(fetched.imported.dictionary), *(("note", note) for note in fetched.imported.notes)]


def _foreign(path: Path) -> Rows:
    """A dictionary in another tool's format, or several of them."""
    from saelab.hub import formats

    below = (file for file in path.rglob("*") if file.is_file())
    names = [file.relative_to(path).as_posix() for file in islice(below, _MOST_FILES)]
    held = {entry.id: form.name for form in formats.FORMATS for entry in form.found(names)}
    if not held:
        raise UserError(f"{path} holds neither a run, a dictionary, activations nor a Hugging Face model")
    if "" not in held:
        yield "what", f"{len(held)} dictionaries (`saelab inspect {path}/NAME` says more)"
        yield from sorted(held.items())
        return
    form = formats.recognise(path)
    imported = form.read(path)
    yield "what", f"dictionary in the format {form.name}, {imported.dictionary.config.architecture}"
    yield from _sizes(imported.dictionary)
    yield from (("note", note) for note in imported.notes)


def _dictionary(path: Path) -> Rows:
    from saelab.dictionaries.artifact import load

    dictionary = load(path)  # checks checksum, shapes and the golden pair
    config = dictionary.config
    yield "what", f"dictionary (schema {config.schema_version}), {config.architecture}"
    changed = DictionaryPaths(path).trained_thresholds.exists()
    yield from _sizes(dictionary, ", calibrated since training" if changed else "")
    yield "trained", f"{config.tokens_trained:,} tokens with saelab {config.saelab_version}"
    yield "checks", "checksum and golden input/output pair agree"


def _sizes(dictionary: Dictionary, about_thresholds: str = "") -> Rows:
    """Where it belongs and what its numbers are like."""
    config = dictionary.config
    yield "site", f"{config.site} of {config.model}"
    if config.targets:
        yield "writes", ", ".join(f"{target.site} ({target.width} wide)" for target in config.targets)
    yield "size", f"{config.d_in} → {config.d_sae} latents, k = {config.k}, rule {config.rule}"
    yield "scale", f"inputs × {config.scale:.4g} before encoding"
    yield "decoder norms", _spread(dictionary.W_dec.norm(dim=1))
    yield "encoder norms", _spread(dictionary.W_enc.norm(dim=1))
    if dictionary.threshold.numel():
        yield "thresholds", _spread(dictionary.threshold) + about_thresholds


def _run(path: Path) -> Rows:
    from saelab.disk import read_jsonl

    names = RunPaths(path)
    metrics = read_jsonl(names.metrics)
    finished = DictionaryPaths(names.dictionary).weights.is_file()
    yield "run", f"{path} ({'finished' if finished else 'not finished: `saelab train` continues it'})"
    if names.pulled.is_file():
        from saelab.hub.pull import PullRecord

        record = PullRecord.model_validate(read_json(names.pulled))
        yield "pulled", f"{record.repo}:{record.id} as of {record.commit}, format {record.format}"
    if metrics:
        yield "metrics", f"{len(metrics)} lines, last: {_last(metrics[-1])}"
    if finished:
        yield from _dictionary(names.dictionary)
    reports = sorted(file.stem for file in names.evaluation.glob("*.json"))
    yield "reports", ", ".join(reports) or f"none: `saelab evaluate {path}`"
    yield "feature index", "present" if names.features.is_dir() else f"none: `saelab index {path}`"


def _sweep(path: Path, runs: list[Path]) -> Rows:
    from saelab.disk import read_jsonl

    finished = [run for run in runs if DictionaryPaths(RunPaths(run).dictionary).weights.is_file()]
    yield "what", f"{len(runs)} runs, {len(finished)} finished (`saelab inspect {path}/NAME` says more)"
    for run in runs:
        metrics = read_jsonl(RunPaths(run).metrics)
        state = "finished" if run in finished else "not finished"
        yield run.name, f"{state}; {_last(metrics[-1])}" if metrics else state


def _model(path: Path) -> Rows:
    config: dict[str, Any] = read_json(path / "config.json")
    architectures = config.get("architectures") or ["unknown architecture"]
    yield "what", f"Hugging Face model folder, {architectures[0]} ({config['model_type']})"
    for label, keys in {
        "layers": ("n_layer", "num_hidden_layers"),
        "width": ("n_embd", "hidden_size"),
        "heads": ("n_head", "num_attention_heads"),
        "context": ("n_positions", "max_position_embeddings"),
        "vocabulary": ("vocab_size",),
    }.items():
        found = next((config[key] for key in keys if key in config), None)
        if found is not None:
            yield label, str(found)
    weights = sorted(path.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in weights)
    yield "weights", f"{len(weights)} safetensors file(s), {size / 1e6:.1f} MB" if weights else "no safetensors weights"
    yield "tokenizer", "tokenizer.json" if (path / "tokenizer.json").is_file() else "none: tokenizer.json is missing"


def _spread(values: Any) -> str:
    low, middle, high = values.float().quantile(values.new_tensor([0.0, 0.5, 1.0]).float()).tolist()
    return f"{low:.4g} … {middle:.4g} … {high:.4g} (least, median, largest)"


def _last(record: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in list(record.items())[:5] if isinstance(value, int | float))


def _activations(path: Path, verify: bool) -> Rows:
    from saelab.activations.ledger import Ledger
    from saelab.activations.report import report

    ledger = Ledger(path)
    manifest = ledger.manifest
    state = "finished" if manifest.finished else "not finished: the same `saelab harvest` continues it"
    yield "what", f"activations (schema {manifest.schema_version}), {state}"
    yield "model", manifest.model
    yield from report(ledger)
    for site, entry in manifest.sites.items():
        scale = "" if entry.scale is None else f", × {entry.scale:.4g} gives mean square norm {entry.width}"
        yield site, f"{entry.width} wide{scale}"
    if damage := ledger.damage(checksums=verify):
        yield from ((DAMAGED, str(found)) for found in damage)
    else:
        whole = "every file is there and " + (
            "its checksum agrees" if verify else "as long as it says (--verify reads all)"
        )
        yield "checks", whole
