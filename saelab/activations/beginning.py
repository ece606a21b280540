"""Before a harvest: is the directory ours, what is there already, do all ranks mean the same?"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import saelab
from saelab.activations.config import HarvestConfig
from saelab.activations.division import Work
from saelab.activations.ledger import Ledger
from saelab.activations.manifest import CorpusPlace, Manifest, SiteEntry
from saelab.activations.plan import HarvestPlan, refuse_if_too_large
from saelab.config import differences
from saelab.disk import ActivationPaths, sha256
from saelab.errors import UserError
from saelab.models import LanguageModel
from saelab.ranks import Ranks

_SEEN_S = 30.0  # a network file system may take its time to show what another machine has written


def require_ours(out: Path) -> None:
    """Refuse a folder that holds something else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give the name of a folder for the activations")
    if not out.is_dir() or ActivationPaths(out).manifest.exists():
        return
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(f"{out} holds other things than activations; give another folder")


def earlier_harvest(out: Path, config: HarvestConfig) -> Ledger | None:
    """What a harvest with the same settings has left at `out`; None when that is nothing.

    Raises:
        UserError: it had other settings.
    """
    if not ActivationPaths(out).manifest.exists():
        return None
    ledger = Ledger(out)
    if not ledger.shards:
        return None  # it came to nothing, so that its settings bind nobody
    changed = differences(ledger.manifest.config.model_dump(mode="json"), config.model_dump(mode="json"))
    if changed:
        raise UserError(
            f"{out} was made with other settings ({_some(changed)}); give another --out, or --overwrite to start anew"
        )
    return ledger


def begin(
    out: Path,
    config: HarvestConfig,
    earlier: Ledger | None,
    broken: Sequence[int],
    intended: HarvestPlan,
    model: LanguageModel,
) -> Work:
    """Bring the directory to where shards can be added, and say which are to be made.

    Args:
        earlier: what there is to go on with; None starts anew, in place of whatever harvest is there.
        broken: numbers of its shards that are known to be damaged.

    Raises:
        UserError: the disk is too small, or another version of the model began it.
    """
    refuse_if_too_large(intended, 0 if earlier is None else earlier.bytes(), out)
    for temporary in list(out.rglob(".*.partial")):  # of a process that was killed while it wrote
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
    numbers: list[int] = []
    if earlier is None:
        _start_anew(out, _first_manifest(config, intended, model))
    else:
        _require_same_model(earlier.manifest, model, out)
        numbers = sorted({*broken, *(found.shard for found in earlier.damage()), *earlier.absent()})
    onwards = 0 if earlier is None else earlier.onwards
    return Work(numbers, onwards, sha256(ActivationPaths(out).manifest))


def agreed(intended: HarvestPlan, config: HarvestConfig, model: LanguageModel, ranks: Ranks) -> HarvestPlan:
    """The plan of all ranks together, once they have shown one another that they mean the same.

    Raises:
        UserError: a rank's settings, model or versions are not those of rank 0.
    """
    facts = {
        "settings": config.model_dump(mode="json"),
        "model": model.fingerprint,
        "tokenizer": model.tokenizer_fingerprint,
        "device": model.device.type,
        "versions": {"saelab": saelab.__version__, "torch": torch.__version__},
        "threads": torch.get_num_threads() if model.device.type == "cpu" else 0,
    }
    told = [json.loads(text) for text in ranks.gather("facts", json.dumps([facts, intended.tokens_per_second]))]
    for rank, (other, _) in enumerate(told):  # all of them: none may begin before it knows that none differs
        if changed := differences(told[0][0], other):
            raise UserError(
                f"{ranks.name(rank)} has not what rank 0 has ({_some(changed)}); all ranks need the same settings, "
                "model, versions and number of threads"
            )
    rates = [rate for _, rate in told if rate is not None]
    memory = intended.memory.of_ranks(ranks.here)
    return replace(intended, memory=memory, tokens_per_second=sum(rates) if rates else None)


def require_same_folder(out: Path, work: Work, ranks: Ranks) -> None:
    """Refuse ranks whose folder is not the one that rank 0 has begun."""
    manifest = ActivationPaths(out).manifest
    end = time.monotonic() + _SEEN_S
    while not (manifest.exists() and sha256(manifest) == work.manifest):
        ranks.check()
        if time.monotonic() > end:
            raise UserError(
                f"{ranks.name(ranks.rank)} does not find in {out} what rank 0 has written there; "
                "all ranks need one folder that they share"
            )
        time.sleep(0.1)


def _start_anew(out: Path, manifest: Manifest) -> None:
    """An empty directory; of an earlier harvest nothing is left, whenever this is interrupted."""
    paths = ActivationPaths(out)
    shutil.rmtree(paths.entries, ignore_errors=True)  # first: they would count for the new manifest too
    manifest.save(out)
    for folder in out.glob("blocks.*"):
        shutil.rmtree(folder)
    for tokens in out.glob(paths.tokens(0).name.replace("00000", "*")):
        tokens.unlink()


def _first_manifest(config: HarvestConfig, intended: HarvestPlan, model: LanguageModel) -> Manifest:
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


def _require_same_model(manifest: Manifest, model: LanguageModel, out: Path) -> None:
    if (manifest.model_fingerprint, manifest.tokenizer_fingerprint) != (model.fingerprint, model.tokenizer_fingerprint):
        raise UserError(
            f"{out} was begun with another version of model {manifest.model!r}; --overwrite starts anew with this one"
        )


def _some(changed: Sequence[str]) -> str:
    return f"{'; '.join(changed[:3])}{'; …' if len(changed) > 3 else ''}"
