"""`saelab index`: from a dictionary and text to a directory that the browser reads."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from saelab.config import as_of_now, differences
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.disk import disk_errors, exclusive, read_json, require_free_space, staged_directory
from saelab.errors import UserError
from saelab.features.collect import Mark, Spill, collect
from saelab.features.config import IndexConfig
from saelab.features.plan import Plan
from saelab.features.reading import read
from saelab.features.schema import summary_path
from saelab.features.write import help_to_write, write_index
from saelab.models import LanguageModel
from saelab.ranks import Ranks
from saelab.ranks.agreement import agree_on
from saelab.ranks.mesh import Mesh, meshed

_MARK = "mark to go on from"


def build_index(config: IndexConfig, model: LanguageModel | None = None, ranks: Ranks | None = None) -> Path:
    """Index every latent of a dictionary in one pass over model and text; returns the index's directory.

    Memory does not grow with the tokens: activations are spilled in sorted runs of `config.buffer` beside the result
    and merged from there. A stopped build goes on at its last run when the same settings are asked for again, and a
    finished index is left alone.

    Args:
        model: a loaded language model to use; the dictionary's own is loaded if not given.
        ranks: the processes that share the work (`saelab.ranks.joined`); each calls this with the same settings. The
            first one writes, so it alone needs the disk; dictionary, model and text are read by all.

    Raises:
        UserError: the index exists with other settings; dictionary, model or corpus are missing or don't fit together;
            the disk has no room; a rank differs or died.
    """
    ranks = ranks or Ranks()
    plan = Plan.resolve(config.model_copy(update={"device": ranks.device(config.device)}), model)
    if ranks.share("is finished", lambda: json.dumps(not config.overwrite and _is_finished(plan))) == "true":
        if ranks.first:
            print(f"{plan.out} is finished already", file=sys.stderr)
        return plan.out
    if ranks.size > 1:
        agree_on(ranks, _facts(plan))
    with meshed(ranks, ranks.size, 1) as mesh:
        if ranks.first:
            _make(plan, mesh)
        else:
            _help(plan, mesh)
        ranks.gather("index is written")
    return plan.out


def _make(plan: Plan, mesh: Mesh) -> None:
    """The first rank's work."""
    require_free_space(plan.out.parent, plan.bytes_needed, f"the feature index {plan.out}")
    spilled = plan.out.parent / f".{plan.out.name}.spill"
    with exclusive(spilled.with_suffix(".lock")):
        spill = Spill(spilled, plan)
        mesh.ranks.share(_MARK, lambda: json.dumps(asdict(spill.mark)))
        with disk_errors(spilled):
            collect(spill, mesh.world)
        with staged_directory(plan.out, replace=plan.config.overwrite) as staging:
            write_index(spill, staging, mesh)
        spill.remove()


def _help(plan: Plan, mesh: Mesh) -> None:
    """The same work as the other ranks have it: step by step what `_make` shares out."""
    mark = Mark(**json.loads(mesh.ranks.share(_MARK, lambda: "")))
    for _ in read(plan, mark.place, mark.wanted(plan), mesh.world):
        pass
    help_to_write(plan, mesh)


def _facts(plan: Plan) -> dict[str, Any]:
    """What must be the same on all ranks, so that they make one index, and the one that a single process makes."""
    model = plan.model
    return {
        "settings": plan.settings | plan.config.model_dump(mode="json", include={"batch", "dtype", "overwrite"}),
        "language model": {"weights": model.fingerprint, "tokenizer": model.tokenizer_fingerprint},
        "device": model.device.type,
        "threads": torch.get_num_threads() if model.device.type == "cpu" else 0,
    }


def _is_finished(plan: Plan) -> bool:
    if not plan.out.exists():
        return False
    made_with = read_json(summary_path(plan.out)).get("settings", {})
    for key, kind in (("corpus", CorpusConfig), ("policy", TokenPolicy)):
        made_with[key] = as_of_now(kind, made_with.get(key, {}))
    if changed := differences(made_with, plan.settings):
        raise UserError(
            f"{plan.out} was made with other settings ({'; '.join(changed)}); give another --out, or add --overwrite"
        )
    return True
