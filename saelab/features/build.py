"""`saelab index`: from a dictionary and text to a directory that the browser reads."""

from __future__ import annotations

import sys
from pathlib import Path

from saelab.config import as_of_now, differences
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.disk import disk_errors, exclusive, read_json, require_free_space, staged_directory
from saelab.errors import UserError
from saelab.features.collect import Spill, collect
from saelab.features.config import IndexConfig
from saelab.features.plan import Plan
from saelab.features.schema import summary_path
from saelab.features.write import write_index
from saelab.models import LanguageModel


def build_index(config: IndexConfig, model: LanguageModel | None = None) -> Path:
    """Index every latent of a dictionary in one pass over model and text; returns the index's directory.

    Memory does not grow with the tokens: activations are spilled in sorted runs of `config.buffer` beside the result
    and merged from there. A stopped build goes on at its last run when the same settings are asked for again, and a
    finished index is left alone.

    Args:
        model: a loaded language model to use; the dictionary's own is loaded if not given.

    Raises:
        UserError: the index exists with other settings; dictionary, model or corpus are missing or don't fit together;
            the disk has no room.
    """
    plan = Plan.resolve(config, model)
    if not config.overwrite and _is_finished(plan):
        print(f"{plan.out} is finished already", file=sys.stderr)
        return plan.out
    require_free_space(plan.out.parent, plan.bytes_needed, f"the feature index {plan.out}")
    spilled = plan.out.parent / f".{plan.out.name}.spill"
    with exclusive(spilled.with_suffix(".lock")):
        spill = Spill(spilled, plan)
        with disk_errors(spilled):
            collect(spill)
        with staged_directory(plan.out, replace=config.overwrite) as staging:
            write_index(spill, staging)
        spill.remove()
    return plan.out


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
