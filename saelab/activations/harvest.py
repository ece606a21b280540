"""`saelab harvest`: text through a model, activations of many sites into shards.

The manifest lists finished shards and where the next one begins, and is replaced only after a shard's files are on the
disk. So a harvest that is killed goes on with the next shard, and what it leaves in the end is the same to the byte.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

import saelab
from saelab.activations.config import HarvestConfig
from saelab.activations.forward import Forward
from saelab.activations.manifest import CorpusPlace, Manifest, SiteEntry
from saelab.activations.plan import HarvestPlan, columns_of, load_model, plan, refuse_if_too_large
from saelab.activations.prefetch import prefetch
from saelab.activations.shards import ShardBuffer, shard_statistics
from saelab.config import differences
from saelab.corpora.packing import Cursor, TokenRows, pack
from saelab.disk import ActivationPaths, exclusive
from saelab.errors import UserError
from saelab.models import LanguageModel
from saelab.progress import track


def harvest(config: HarvestConfig, out: Path, overwrite: bool = False, model: LanguageModel | None = None) -> Path:
    """Write a directory of activations, or go on with an unfinished one, and return it.

    A finished directory made with the same settings is left as it is.

    Args:
        overwrite: remove an earlier harvest at `out` first.
        model: a loaded model to use in place of `config.model` (which should name it).

    Raises:
        UserError: settings that can't be met, too little disk, `out` made with other settings or holding other things.
    """
    out = Path(out)
    _require_ours(out)
    earlier = None if overwrite else _earlier(out, config)
    if earlier is not None and earlier.finished:
        return out
    model = model or load_model(config)
    intended = plan(config, out, model)  # what can't be meant is refused before the disk is touched
    with exclusive(ActivationPaths(out).manifest.with_name(".lock")):
        if overwrite:
            discard(out)
        earlier = _earlier(out, config)  # again: another process may have been here since
        manifest = _begin(config, intended, model) if earlier is None else _same_model(earlier, model, out)
        _remove_leftovers(out)
        written = sum((out / name).stat().st_size for shard in manifest.shards for name in shard.files)
        refuse_if_too_large(intended, written, out)
        manifest.save(out)
        _finish(_write_shards(config, out, intended, manifest, model), out)
    return out


def discard(out: Path) -> None:
    """Remove an earlier harvest: its shards and its manifest, nothing else."""
    paths = ActivationPaths(out)
    if not paths.manifest.exists():
        return
    paths.manifest.unlink()  # first: without a manifest the rest is nothing
    for folder in out.glob("blocks.*"):
        shutil.rmtree(folder)
    for tokens in out.glob(paths.tokens(0).name.replace("00000", "*")):
        tokens.unlink()


def _write_shards(
    config: HarvestConfig, out: Path, intended: HarvestPlan, manifest: Manifest, model: LanguageModel
) -> Manifest:
    columns = columns_of(intended.sites, config)
    forward = Forward(model, config.policy, columns)
    buffer = ShardBuffer(config, {column: intended.sites[column.site] for column in columns})
    with track(intended.tokens, "harvest", done=manifest.n_tokens) as bar:
        for rows in prefetch(_rows(config, forward, manifest.next), depth=4):
            buffer.add(rows, forward(rows))
            if buffer.n_rows == config.shard_rows:
                manifest = _write_shard(manifest, buffer, out)
            bar.advance(rows.ids.numel(), f"shard {len(manifest.shards)} of {intended.shards}")
        if buffer.n_rows:
            manifest = _write_shard(manifest, buffer, out)
    return manifest


def _rows(config: HarvestConfig, forward: Forward, place: CorpusPlace) -> Iterator[TokenRows]:
    """The rows of each forward pass that is still to be made."""
    left = config.rows - place.row
    cursor = Cursor(document=place.document, token=place.token, row=place.row)
    if left == 0:
        return
    for rows in pack(config.corpus, forward.tokenizer, config.policy, config.batch, cursor):
        yield rows if len(rows) <= left else rows.first(left)
        left -= len(rows)
        if left <= 0:
            return


def _write_shard(manifest: Manifest, buffer: ShardBuffer, out: Path) -> Manifest:
    entry = buffer.write(ActivationPaths(out), len(manifest.shards))
    end = buffer.rows[-1].next
    manifest = manifest.model_copy(
        update={
            "n_tokens": manifest.n_tokens + entry.rows * manifest.config.policy.context,
            "n_kept": manifest.n_kept + entry.kept,
            "next": CorpusPlace(document=end.document, token=end.token, row=end.row),
            "shards": [*manifest.shards, entry],
        }
    )
    manifest.save(out)
    buffer.clear()
    return manifest


def _finish(manifest: Manifest, out: Path) -> None:
    """Add up the statistics that the shards carry, and mark the directory as finished."""
    if manifest.n_kept == 0:
        raise UserError(f"the policy excludes every token of corpus {manifest.config.corpus.source!r}; nothing to keep")
    sites = {site: _site_entry(site, entry.width, manifest, out) for site, entry in manifest.sites.items()}
    manifest.model_copy(update={"sites": sites, "finished": True}).save(out)


def _site_entry(site: str, width: int, manifest: Manifest, out: Path) -> SiteEntry:
    paths = ActivationPaths(out)
    total = torch.zeros(width, dtype=torch.float64)
    squares = torch.zeros(1, dtype=torch.float64)
    for number in range(len(manifest.shards)):
        of_shard, squares_of_shard = shard_statistics(paths.activations(site, number))
        total += of_shard
        squares += squares_of_shard
    mean_square = squares.item() / manifest.n_kept
    scale = math.sqrt(width / mean_square) if mean_square else 1.0
    return SiteEntry(width=width, scale=scale, mean=(total / manifest.n_kept).tolist())


def _begin(config: HarvestConfig, intended: HarvestPlan, model: LanguageModel) -> Manifest:
    assert model.tokenizer_fingerprint is not None  # the plan refuses a model without a tokenizer
    return Manifest(
        saelab_version=saelab.__version__,
        finished=False,
        model=model.name,
        model_revision=model.revision,
        model_fingerprint=model.fingerprint,
        tokenizer_fingerprint=model.tokenizer_fingerprint,
        config=config,
        sites={str(site): SiteEntry(width=width, scale=None, mean=None) for site, width in intended.sites.items()},
        n_tokens=0,
        n_kept=0,
        next=CorpusPlace(document=0, token=0, row=0),
        shards=[],
    )


def _require_ours(out: Path) -> None:
    """Refuse a folder that holds something else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give the name of a folder for the activations")
    if not out.is_dir() or ActivationPaths(out).manifest.exists():
        return
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(f"{out} holds other things than activations; give another folder")


def _earlier(out: Path, config: HarvestConfig) -> Manifest | None:
    """The manifest of a harvest with the same settings, if there is one."""
    if not ActivationPaths(out).manifest.exists():
        return None
    manifest = Manifest.load(out)
    if not manifest.shards:
        return None  # it came to nothing, so that its settings bind nobody
    changed = differences(manifest.config.model_dump(mode="json"), config.model_dump(mode="json"))
    if changed:
        raise UserError(
            f"{out} was made with other settings ({'; '.join(changed[:3])}{'; …' if len(changed) > 3 else ''}); "
            "give another --out, or --overwrite to start anew"
        )
    return manifest


def _same_model(manifest: Manifest, model: LanguageModel, out: Path) -> Manifest:
    if (manifest.model_fingerprint, manifest.tokenizer_fingerprint) != (model.fingerprint, model.tokenizer_fingerprint):
        raise UserError(
            f"{out} was begun with another version of model {manifest.model!r}; --overwrite starts anew with this one"
        )
    missing = manifest.damage(out, checksums=False)
    if missing:
        raise UserError(f"{out}: {missing[0]}; --overwrite starts anew")
    return manifest


def _remove_leftovers(out: Path) -> None:
    """Temporary files of a process that was killed while it wrote."""
    for temporary in out.rglob(".*.partial"):
        temporary.unlink()
