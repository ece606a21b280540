"""What a latent does to the loss where it fires most: its contribution taken away on one token, all else left alone.

Of every latent's largest activations, one at a time: the codes of that token are edited to 0 at the latent, the
difference of the decodings is added to the activation (so the reconstruction error stays, METHODS §6), and the loss of
the next token is compared with the clean one. Only that token is computed again; all before it are read from keys and
values of the clean row. Which rows of text are read for it is chosen so that every latent gets its share. Chunks of
rows are divided among ranks; the first chooses them, and puts together what all have measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Float32, Int, Int64
from numpy.typing import NDArray
from torch import Tensor

from saelab.disk import disk_errors
from saelab.features.collect import Spill
from saelab.features.plan import Plan
from saelab.features.schema import EFFECTS, EXAMPLES
from saelab.features.tables import TableWriter
from saelab.models import Intervention
from saelab.progress import track
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import Mesh
from saelab.ranks.turns import from_first, in_turns
from saelab.training.origin import written_sites

_CACHED_NUMBERS = 2**26  # keys and values held at once: 256 MB in fp32
_MARK_EVERY = 8  # chunks of rows, after which the work is noted
_CHOSEN = "rows for effects are chosen"


class Measured(NamedTuple):
    """How much was measured, for index.json."""

    examples: int
    """Activations whose effect is known."""
    of: int
    """Largest activations kept, whose next token exists."""
    rows: int
    """Rows of text that were read again."""


@dataclass(frozen=True)
class Peaks:
    """Activations whose effect is wanted, in the order of their tokens; `rank` 0 is a latent's largest."""

    latent: Int64[np.ndarray, "n"]
    token: Int64[np.ndarray, "n"]
    value: Float32[np.ndarray, "n"]
    rank: Int64[np.ndarray, "n"]

    def __getitem__(self, index: NDArray | slice) -> Peaks:
        return Peaks(self.latent[index], self.token[index], self.value[index], self.rank[index])

    def __len__(self) -> int:
        return len(self.token)


class Rows(NamedTuple):
    """Rows of text."""

    number: Int64[np.ndarray, "rows"]
    """Ascending."""
    ids: Int[Tensor, "rows context"]
    loss: Float32[np.ndarray, "rows context"]
    """Clean, of the next token."""


def write_effects(spill: Spill, root: Path, writer: TableWriter, mesh: Mesh) -> Measured:
    """Measure, going on where an earlier attempt stopped, and write the table: the first rank's work.

    Args:
        root: the index in the making, whose examples are written.
        mesh: all ranks; the others call `help_with_effects`.
    """
    assert writer.table is EFFECTS
    peaks, context = _largest(root, spill), spill.plan.policy.context
    rows = chosen_rows(peaks.latent, peaks.token // context, peaks.rank, spill.plan.config.effect_tokens, context)
    wanted = peaks[np.isin(peaks.token // context, rows)]
    mesh.ranks.gather(_CHOSEN)
    with disk_errors(spill.root):
        _measure(spill, wanted, rows, mesh.world)
    for piece in spill.effects.pieces():
        writer.append({"latent": piece.major, "token": piece.minor, "effect": piece.values})
    return Measured(len(wanted), len(peaks), len(rows))


def help_with_effects(plan: Plan, mesh: Mesh) -> None:
    """The other ranks' part in `write_effects`: wait until it is known what to measure, and measure some of it."""
    mesh.ranks.gather(_CHOSEN)
    for _ in _effects(plan, (), mesh.world):
        pass


def chosen_rows(
    latent: Int64[np.ndarray, "n"],
    row: Int64[np.ndarray, "n"],
    rank: Int64[np.ndarray, "n"],
    budget: int,
    context: int,
) -> Int64[np.ndarray, "rows"]:
    """Rows of text that hold the activations (latent, row), so many that rows and activations fit the budget.

    All if they fit. Else one after another the row whose activations weigh most. The activation of rank r of a latent
    of which m are chosen already weighs 1 / ((m + 1)² √(r + 1)): latents without any come first, and strong activations
    before weak ones. Ties go to the earlier row.

    Args:
        budget: tokens that may be computed: `context` for each row, and one for each activation in it.
    """
    rows, place = np.unique(row, return_inverse=True)
    cost = context + np.bincount(place, minlength=len(rows))
    if cost.sum() <= budget:
        return rows
    chosen = np.zeros(len(rows), bool)
    had = np.zeros(latent.max() + 1, np.int64)
    members = np.split(latent[np.argsort(place, kind="stable")], np.cumsum(cost - context)[:-1])
    while True:
        weight = np.bincount(place, 1 / ((had[latent] + 1) ** 2 * np.sqrt(rank + 1)), len(rows))
        weight[chosen | (cost > budget)] = 0
        best = int(weight.argmax())
        if not weight[best]:
            return rows[chosen]
        chosen[best] = True
        budget -= cost[best]
        np.add.at(had, members[best], 1)


def _largest(root: Path, spill: Spill) -> Peaks:
    """The largest activations that the index keeps, but those on tokens after which no token comes."""
    columns = ["latent", "token", "value", "rank"]
    table = pq.read_table(EXAMPLES.path(root), columns=columns, filters=[("quantile", "==", 0)])
    latent, token, value, rank = (table[name].to_numpy() for name in columns)
    peaks = Peaks(latent.astype(np.int64), token, value, rank.astype(np.int64))
    peaks = peaks[~np.isnan(spill.text.loss[peaks.token])]
    return peaks[np.lexsort((peaks.latent, peaks.token))]


def _measure(spill: Spill, peaks: Peaks, rows: NDArray, axis: Axis) -> None:
    """Chunk by chunk of rows into the spill, from its mark on."""
    model, context = spill.plan.model, spill.plan.policy.context
    at_once = max(1, _CACHED_NUMBERS // (2 * model.n_layers * model.d_model * context))
    done = spill.mark.effect_rows
    chunks = (_chunk(spill, peaks, rows[begin : begin + at_once]) for begin in range(done, len(rows), at_once))
    with track(len(rows), "effects", unit="rows", done=done) as bar:
        for number, found in enumerate(_effects(spill.plan, chunks, axis), 1):
            parts = {name: tensor.numpy() for name, tensor in found.items()}
            spill.effects.append(parts["latent"], parts["token"], parts["effect"])
            bar.advance(len(parts["number"]))
            done += len(parts["number"])
            if number % _MARK_EVERY == 0 or done == len(rows):
                spill.save_mark(replace(spill.mark, effect_rows=done))


def _chunk(spill: Spill, peaks: Peaks, rows: NDArray) -> dict[str, Tensor]:
    """Rows of text and the activations in them, as they travel to the rank that measures them."""
    context = spill.plan.policy.context
    here = peaks[slice(*np.searchsorted(peaks.token, [rows[0] * context, (rows[-1] + 1) * context]))]
    ids, clean = (column.reshape(-1, context)[rows] for column in (spill.text.ids, spill.text.loss))
    parts = {"number": rows, "ids": ids.astype(np.int64), "loss": clean, **vars(here)}
    return {name: torch.from_numpy(array) for name, array in parts.items()}


def _effects(plan: Plan, chunks: Iterable[Mapping[str, Tensor]], axis: Axis) -> Iterator[dict[str, Tensor]]:
    """The effects in each of the first rank's chunks, in order, on the first rank; the others measure with it."""

    def measured(chunk: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = Rows(chunk["number"].numpy(), chunk["ids"], chunk["loss"].numpy())
        peaks = Peaks(*(chunk[field.name].numpy() for field in fields(Peaks)))
        named = {name: chunk[name] for name in ("number", "latent", "token")}
        return named | {"effect": torch.from_numpy(row_effects(plan, rows, peaks))}

    return in_turns(axis, from_first(axis, chunks), measured)


def row_effects(plan: Plan, rows: Rows, peaks: Peaks) -> Float32[np.ndarray, "n"]:
    """Loss of the next token without each activation's contribution, minus the clean loss (nats).

    Args:
        peaks: activations in these rows.
    """
    model, context = plan.model, plan.policy.context
    logits_at = model.at_positions(rows.ids)
    directions = plan.encoder.decoder_directions()
    place, position = np.searchsorted(rows.number, peaks.token // context), peaks.token % context
    effects = np.zeros(len(peaks), np.float32)

    def losses(here: int, of: NDArray, change: Float[Tensor, "some d_out"]) -> NDArray:
        with _added(plan, change):
            logits = logits_at(here, torch.from_numpy(of)).float()
        following = rows.ids[torch.from_numpy(of), here + 1].to(logits.device)
        return torch.nn.functional.cross_entropy(logits, following, reduction="none").cpu().numpy()

    for here in np.unique(position).tolist():
        found = np.flatnonzero(position == here)
        copies = max(1, _CACHED_NUMBERS // (2 * model.n_layers * model.d_model * (here + 1)))
        for some in (found[begin : begin + copies] for begin in range(0, len(found), copies)):
            of, values = place[some], torch.from_numpy(peaks.value[some]).to(directions)
            taken = values[:, None] * directions[torch.from_numpy(peaks.latent[some]).to(directions.device)]
            # In low precision another batch means other rounding: there the clean token is computed alike.
            clean = rows.loss[of, here] if model.dtype == torch.float32 else losses(here, of, torch.zeros_like(taken))
            effects[some] = losses(here, of, -taken) - clean
    return effects


@contextmanager
def _added(plan: Plan, change: Float[Tensor, "n d_out"]) -> Iterator[None]:
    """Add to what the dictionary writes to, one vector for each row."""
    sites = written_sites(plan.dictionary.config)
    parts = change[:, None].split([plan.model.width(site) for site in sites], dim=-1)
    with plan.model.intervene(*(Intervention(s, partial(_plus, p)) for s, p in zip(sites, parts, strict=True))):
        yield


def _plus(vector: Tensor, x: Tensor) -> Tensor:
    return x + vector.to(x)
