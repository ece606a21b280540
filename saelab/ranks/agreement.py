"""Do all ranks mean the same? Settings, models and texts compared before work that is shared begins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from saelab.config import differences
from saelab.errors import UserError
from saelab.ranks.ranks import Ranks

_NAMED = 3


def agree_on(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Go on once all ranks have shown one another the same facts (names → what JSON can say).

    Raises:
        UserError: on all ranks: a rank's facts are not those of rank 0; the first few differences are named.
    """
    told = [json.loads(text) for text in ranks.gather("facts", json.dumps(facts))]
    for rank, other in enumerate(told):
        if changed := differences(told[0], other):
            some = "; ".join(changed[:_NAMED]) + ("; …" if len(changed) > _NAMED else "")
            raise UserError(
                f"{ranks.name(rank)} has not what rank 0 has ({some}); start all ranks with the same command, the same "
                "files and the same versions"
            )
