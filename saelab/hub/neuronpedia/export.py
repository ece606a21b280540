"""`saelab neuronpedia`: everything about one dictionary, in the folders of Neuronpedia's bulk import."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from saelab.dictionaries.artifact import load
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, require_free_space, staged_directory
from saelab.disk.files import staged_file
from saelab.errors import UserError
from saelab.features.index import FeatureIndex
from saelab.hub.neuronpedia.content import Place, activations, feature
from saelab.hub.neuronpedia.rows import Model, Release, Row, Source, SourceSet
from saelab.models import Site
from saelab.progress import track

LATENTS_PER_BATCH: Final = 256
_LEVEL: Final = 5  # of gzip: what Neuronpedia's own export uses
_BYTES_PER_NUMBER: Final = 12
_SHORT: Final = {
    "resid_pre": "res-pre", "resid_mid": "res-mid", "resid_post": "res", "mlp_out": "mlp", "attn_out": "att", "z": "att"
}  # fmt: skip


def export(
    run: Path,
    out: Path,
    *,
    model_id: str | None = None,
    source_set: str | None = None,
    release: str | None = None,
    creator: str = "saelab",
    creator_id: str = "saelab",
    repo: str | None = None,
) -> Path:
    """Write the rows of one run's dictionary and feature index below the new directory `out`, in one step.

    Args:
        model_id: Neuronpedia's name of the model; left out, the last part of the name that the dictionary gives.
        source_set: name for dictionaries of this kind, without the layer; left out, kind of site and name of the run.
        release: name of the release; left out, that of the source set.
        creator_id: id of the account that imports, which Neuronpedia's maintainers give.
        repo: where the weights are on the Hub, as user/repo.

    Returns:
        The source's folder, `out`/MODEL/LAYER-SET.

    Raises:
        UserError: no feature index, one of other weights, a transcoder, or a site that Neuronpedia has no hook for.
    """
    dictionary, index = load(run), FeatureIndex(RunPaths(run).features)
    place = _place(dictionary, index, run, model_id, source_set, creator_id)
    numbers = dictionary.d_sae * (dictionary.d_in + 60 * index.summary.get("settings", {}).get("top_examples", 20))
    require_free_space(out, numbers * _BYTES_PER_NUMBER, f"the export of {run}")
    about = _about(dictionary, index, place, release or place.source_set, creator, repo)
    with staged_directory(out) as staging:
        folder = staging / place.model / place.source
        for name, row in about.items():
            _write(folder / f"{name}.jsonl", [row])
        _latents(dictionary, index, place, folder)
    return out / place.model / place.source


def _place(
    dictionary: Dictionary, index: FeatureIndex, run: Path, model_id: str | None, source_set: str | None, creator: str
) -> Place:
    config = dictionary.config
    if index.summary["dictionary"]["weights_sha256"] != config.weights_sha256:
        raise UserError(
            f"the feature index of {run} is about other weights; make it again: saelab index {run} --overwrite"
        )
    if config.targets:
        raise UserError("Neuronpedia's rows have one hook for reading and writing, which a transcoder has not")
    site = Site.parse(dictionary.site)
    if site.kind not in _SHORT or site.head is not None:
        raise UserError(f"Neuronpedia has no hook for {site}; it has one for {', '.join(_SHORT)}")
    named = source_set or f"{_SHORT[site.kind]}-{run.resolve().name}"
    return Place(
        model=model_id or dictionary.model_name.rstrip("/").rsplit("/", 1)[-1], source_set=named,
        source=f"{site.layer}-{named}", hook=site.hook_name, creator=creator,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def _about(
    dictionary: Dictionary, index: FeatureIndex, place: Place, release: str, creator: str, repo: str | None
) -> dict[str, Row]:
    """One row each: release, model, source set and source."""
    config, context = dictionary.config, index.summary["context"]
    what = f"{config.architecture}, {config.d_sae:,} latents, at {place.hook}"
    by: dict[str, Any] = {"creatorId": place.creator, "createdAt": place.created}
    urls = [f"https://huggingface.co/{repo}"] if repo else []
    return {
        "release": Release(
            name=release, description=what, descriptionShort=what, creatorName=creator, creatorNameShort=creator,
            urls=urls, **by,
        ),
        "model": Model(
            id=place.model, instruct=place.model.endswith("-it"), displayName=place.model,
            displayNameShort=place.model, updatedAt=place.created, **by,
        ),
        "sourceset": SourceSet(
            modelId=place.model, name=place.source_set, creatorName=creator, description=what, releaseName=release,
            urls=urls, **by,
        ),
        "source": Source(
            id=place.source, modelId=place.model, setName=place.source_set, hfRepoId=repo,
            num_prompts=index.summary["n_positions"] // context, num_tokens_in_prompt=context,
            dataset=str(index.summary["corpus"]["source"]),
            notes="Examples are windows of the text; activations in the dictionary's own units.", **by,
        ),
    }  # fmt: skip


def _latents(dictionary: Dictionary, index: FeatureIndex, place: Place, folder: Path) -> None:
    with track(dictionary.d_sae, "export", "latents") as bar:
        for number, first in enumerate(range(0, dictionary.d_sae, LATENTS_PER_BATCH)):
            some = range(first, min(first + LATENTS_PER_BATCH, dictionary.d_sae))
            vectors = (dictionary.W_dec[some.start : some.stop] / dictionary.output_scale).numpy().astype(np.float32)
            name = f"batch-{number}.jsonl.gz"
            _write(folder / "features" / name, (feature(index, place, i, vectors[i - first]) for i in some))
            _write(folder / "activations" / name, (row for i in some for row in activations(index, place, i)))
            bar.advance(len(some))


def _write(path: Path, rows: Iterable[Row]) -> None:
    """Lines of JSON, zipped where the name says so; the same rows give the same bytes."""
    lines = "".join(row.model_dump_json() + "\n" for row in rows).encode()
    with staged_file(path) as file:
        file.write(gzip.compress(lines, _LEVEL, mtime=0) if path.suffix == ".gz" else lines)
