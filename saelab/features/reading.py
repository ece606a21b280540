"""The pass over model and text, batch by batch, divided among ranks: what an index keeps of each batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from saelab.activations.forward import without_sinks
from saelab.corpora import Cursor, TokenRows, label_rows, pack
from saelab.errors import UserError
from saelab.features.plan import Plan
from saelab.ranks.axis import Axis
from saelab.ranks.turns import in_turns


def read(plan: Plan, cursor: Cursor, wanted: int, axis: Axis) -> Iterator[dict[str, Tensor]]:
    """Batches of the text from `cursor` on, in order, as `_measured` has them; on ranks other than the first nothing.

    The batches are the same however many ranks there are: each packs all of the text and runs the model on its own
    batches. It ends with the row that reaches `wanted` kept tokens, or with the text.
    """
    packed = pack(plan.corpus, plan.tokenizer, plan.policy, rows=plan.config.batch, cursor=cursor)
    while wanted > 0 and (batches := list(islice(packed, axis.size))):
        own = slice(axis.index, axis.index + 1)
        batches[own] = without_sinks(plan.model, plan.policy, batches[own])
        # With sinks, what a batch keeps is known to the rank alone that has run the model on it.
        counts = axis.gather(torch.tensor([sum(rows.n_kept for rows in batches[own])]), "kept tokens").tolist()
        todo = [_cut(rows, left) for n, rows in enumerate(batches) if (left := wanted - sum(counts[:n])) > 0]
        for found, rows in zip(in_turns(axis, todo, partial(_measured, plan)), batches, strict=False):
            _require_same_text(found, rows, plan)
            yield found
        wanted -= sum(counts)


def _measured(plan: Plan, rows: TokenRows) -> dict[str, Tensor]:
    """What the rows are, their losses (NaN where padding is predicted), labels, and sparse codes of kept tokens."""
    activations, loss = plan.model.activations_and_loss(rows.ids, [plan.site])
    x = activations[plan.site]
    codes = plan.encoder.encode(x[rows.keep.to(x.device)].float()).to("cpu")
    found = {
        "ids": rows.ids,
        "documents": rows.documents,
        "real": rows.real,
        "kept": rows.keep,
        "next": torch.tensor(astuple(rows.next)),
        "loss": loss.cpu().masked_fill(~rows.real[:, 1:], math.nan),
        "latents": codes.latents,
        "offsets": codes.offsets,
        "values": codes.values,
    }
    return found | ({"labels": label_rows(rows, plan.corpus, plan.tokenizer)} if plan.labels else {})


def _require_same_text(found: dict[str, Tensor], rows: TokenRows, plan: Plan) -> None:
    """Refuse a batch that another rank has read from another text than this one."""
    if not torch.equal(found["ids"], rows.ids[: len(found["ids"])]):
        raise UserError(
            f"the ranks read different texts from corpus {plan.corpus.source!r} (row {rows.start.row} and the "
            f"{len(rows) - 1} behind it); give all machines the same files"
        )


def _cut(rows: TokenRows, wanted: int) -> TokenRows:
    """As many of the rows as reach `wanted` kept tokens, so that the batch size does not change what is indexed."""
    reached = rows.keep.sum(1).cumsum(0)
    return rows.first(min(int((reached < wanted).sum()) + 1, len(rows)))
