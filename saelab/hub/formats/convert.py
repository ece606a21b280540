"""From one format into another: read, write beside the goal, read back, compare, and only then take the goal's name."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import disk_errors, move
from saelab.errors import UserError
from saelab.hub.formats import Format, recognise
from saelab.hub.formats.placed import placed
from saelab.hub.formats.probes import Difference, difference, probes

INPUTS = 256  # on which source and result are compared
TOLERANCE = 1e-4  # relative, of any reconstruction


@dataclass(frozen=True, eq=False)
class Converted:
    """What was read, what there is to say of it, and how exact the result is."""

    source: Format
    dictionary: Dictionary
    notes: tuple[str, ...]
    difference: Difference


def convert(source: Path, goal: Path, to: Format, site: str = "", target: str = "", model: str = "") -> Converted:
    """Write the dictionary in `source` to the new directory `goal`, in the format `to`.

    Args:
        site, target, model: its place, where the files in `source` are silent (`placed`).

    Raises:
        UserError: `source` is in no known format or refused, `to` can't express it, `goal` exists, or what was
            written does not compute what was read.
    """
    if goal.exists():
        raise UserError(f"{goal} exists already; give another name or remove it")
    form = recognise(source)
    imported = placed(form.read(source), site, target, model)
    dictionary = imported.dictionary
    with disk_errors(goal):
        goal.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{goal.name}.", suffix=".partial", dir=goal.parent) as beside:
            written = Path(beside) / goal.name
            lost = to.write(dictionary, written)
            result = to.read(written).dictionary
            apart = difference(dictionary, result, probes(dictionary, INPUTS, seed=1))
            if apart.largest > TOLERANCE:
                raise UserError(
                    f"{source} can't be written as {to.name}: reconstructions would be off by {apart.largest:.1e}, and "
                    f"{TOLERANCE:.0e} is the most that rounding explains"
                )
            move(written, goal)
    folded = dictionary.config.scale != result.config.scale
    factor = (f"the factor {dictionary.config.scale:.6g} of inputs was folded into the weights",) if folded else ()
    return Converted(form, dictionary, (*imported.notes, *factor, *lost), apart)
