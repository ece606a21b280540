"""A damaged shard, made again: only with the bytes that it had, or with values that prove to be the same.

The same machine with the same number of threads computes the same bytes, and the manifest's checksums prove it. Another
one rounds differently. Then the tokens must be the same to the byte, which they are wherever they are computed, and the
activations must agree, up to rounding, with what is left of the shard: its undamaged files, or else the sum of squares
that the manifest holds.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from saelab.activations.columns import Column
from saelab.activations.config import HarvestConfig
from saelab.activations.manifest import ShardEntry, damage_of
from saelab.activations.mapped import map_tensors
from saelab.activations.shards import ShardBuffer
from saelab.activations.stored import decode
from saelab.disk import ActivationPaths, move
from saelab.errors import UserError

ROUNDING = {"fp32": 1e-3, "fp16": 4e-3, "bf16": 3e-2, "int8": 3e-2, "float32": 1e-3, "float16": 4e-3, "bfloat16": 3e-2}
"""Largest ‖new − old‖ / ‖old‖ of a file that passes for rounding, by storage type and by the type of the model.

Eight units in the last place for types of 16 bits; 1e-3 for fp32, whose products GPUs may compute in TF32.
"""


def make_again(directory: Path, number: int, listed: ShardEntry, buffer: ShardBuffer) -> ShardEntry:
    """Put back the files of a shard that are missing or damaged, from the filled buffer; its entry as it is then.

    Raises:
        UserError: what was made is not what the shard held.
    """
    paths = ActivationPaths(directory)
    staging = paths.staging(number)
    try:
        made = buffer.write(ActivationPaths(staging), number)
        names = {found.file for found in damage_of(number, listed, directory)}
        rounding = listed.rounding
        if made.files != listed.files:
            rounding = max(_agreement(paths, number, listed, made, names, buffer), rounding or 0.0)
        for name in sorted(names):
            move(staging / name, directory / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    files = {name: (made if name in names else listed).files[name] for name in listed.files}
    replaced = {str(c.site) for c in buffer.widths if _name(c, paths, number) in names}
    squares = {site: value for site, value in squares_of(buffer).items() if site in replaced}
    return listed.model_copy(update={"files": files, "squares": listed.squares | squares, "rounding": rounding})


def squares_of(buffer: ShardBuffer) -> dict[str, float]:
    """Site → Σ |x|² of a filled buffer, as stored."""
    return {str(column.site): squares.item() for column, squares in buffer.squares.items()}


def _agreement(
    paths: ActivationPaths,
    number: int,
    listed: ShardEntry,
    made: ShardEntry,
    damaged: set[str],
    buffer: ShardBuffer,
) -> float:
    """Largest relative difference between the shard made again and what is left of it."""
    tokens = paths.tokens(number).relative_to(paths.root).as_posix()
    where = f"shard {number} of {paths.root}"
    if made.start != listed.start or made.files[tokens] != listed.files[tokens]:
        raise UserError(
            f"{where} can't be made again: the text gives other tokens than it did, or the policy keeps others; "
            "bring the text back as it was, or --overwrite starts anew"
        )
    found: dict[str, float] = {}
    for column in buffer.widths:
        name = _name(column, paths, number)
        if name not in damaged:
            found[name] = _difference(column, paths.root / name, paths.staging(number) / name)
    if not found:
        squares = squares_of(buffer)
        found = {site: abs(squares[site] / old - 1) for site, old in listed.squares.items() if old}
    if not found:
        raise UserError(
            f"{where} came out with other bytes than it had (another machine or number of threads), and nothing of it "
            "is left to compare with; repair it where it was made, or --overwrite starts anew"
        )
    worst = max(found, key=lambda name: found[name])
    if found[worst] > (limit := tolerance(buffer.config)):
        raise UserError(
            f"{where} can't be made again: {worst} comes out different by {found[worst]:.1e} of its length, where "
            f"rounding explains {limit:.0e}; use the model and precision that made it, or --overwrite starts anew"
        )
    return found[worst]


def tolerance(config: HarvestConfig) -> float:
    """What another machine's rounding may change, as a share of a file's length as a vector."""
    return max(ROUNDING[config.dtype], ROUNDING[config.model_dtype])


def _name(column: Column, paths: ActivationPaths, number: int) -> str:
    return column.path(paths, number).relative_to(paths.root).as_posix()


def _difference(column: Column, old: Path, new: Path) -> float:
    before, after = (decode(stored[column.key], stored.get("row_scale")) for stored in map(map_tensors, (old, new)))
    length = before.double().norm().item()
    return (after - before).double().norm().item() / length if length else after.double().norm().item()
