"""The one pass over model and text: sparse activations of every kept token, spilled to disk as they come."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from saelab.activations.forward import without_sinks
from saelab.config import differences
from saelab.corpora import Cursor, TokenRows, label_rows, pack
from saelab.disk import read_json, write_json
from saelab.errors import UserError
from saelab.features.coactivation import PairCounts
from saelab.features.plan import Plan
from saelab.features.spill import SortedRuns
from saelab.features.text import TextColumns
from saelab.progress import track


@dataclass(frozen=True)
class Mark:
    """How far the pass has come; everything in the files up to here is whole."""

    cursor: dict[str, int] = field(default_factory=lambda: Cursor().to_json())
    kept: int = 0  # kept tokens
    positions: int = 0  # all tokens, the excluded ones too
    pair_tokens: int = 0  # kept tokens whose pairs were counted
    runs: int = 0
    pair_runs: int = 0
    effect_rows: int = 0  # rows of text on which the effects of latents were measured, after the pass
    effect_runs: int = 0
    exhausted: bool = False  # the corpus ended before the wanted number of tokens


class Spill:
    """The folder of an index in the making. It is found again by the same command, which goes on at the last mark."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root, self.plan = root, plan
        self.mark = self._find_mark()
        self.text = TextColumns(root / "text", plan.policy.context, plan.labels)
        self.activations = SortedRuns(root / "activations", plan.dictionary.d_sae, plan.config.buffer)
        self.pairs = PairCounts(root / "pairs", plan.dictionary.d_sae, plan.config.buffer)
        # Effects on the loss, measured row by row and wanted by latent.
        self.effects = SortedRuns(root / "effects", plan.dictionary.d_sae, plan.config.buffer)
        self.text.truncate(self.mark.positions)
        self.activations.truncate(self.mark.runs)
        self.pairs.runs.truncate(self.mark.pair_runs)
        self.effects.truncate(self.mark.effect_runs)

    def save_mark(self, mark: Mark) -> None:
        """Flush, then record the point to go on from."""
        self.activations.flush()
        self.pairs.runs.flush()
        self.effects.flush()
        self.mark = replace(
            mark, runs=self.activations.n_runs, pair_runs=self.pairs.runs.n_runs, effect_runs=self.effects.n_runs
        )
        write_json(self._state, {"settings": self.plan.settings, "mark": asdict(self.mark)})

    def remove(self) -> None:
        shutil.rmtree(self.root)

    @property
    def _state(self) -> Path:
        return self.root / "state.json"

    def _find_mark(self) -> Mark:
        if self._state.exists():
            state: dict[str, Any] = read_json(self._state)
            lasting = not self.plan.corpus.is_standard_input  # else the text comes again, from its beginning
            if lasting and not differences(state["settings"], self.plan.settings):
                return Mark(**state["mark"])
        shutil.rmtree(self.root, ignore_errors=True)  # left by other settings, or without a single mark
        self.root.mkdir(parents=True)
        return Mark()


def collect(spill: Spill) -> None:
    """Run the model over the text once, from the spill's mark to the wanted number of tokens or the corpus's end."""
    plan, mark = spill.plan, spill.mark
    packed = pack(plan.corpus, plan.tokenizer, plan.policy, rows=plan.config.batch, cursor=Cursor(**mark.cursor))
    rows_left = without_sinks(plan.model, plan.policy, packed)
    with track(plan.config.tokens, "index", unit="tokens", done=mark.kept) as bar:
        while mark.kept < plan.config.tokens and not mark.exhausted:
            rows = next(rows_left, None)
            if rows is None:
                mark = replace(mark, exhausted=True)
                break
            rows = _cut(rows, plan.config.tokens - mark.kept)
            pair_tokens = _collect_rows(spill, rows, mark)
            kept = rows.n_kept
            mark = replace(
                mark,
                cursor=rows.next.to_json(),
                kept=mark.kept + kept,
                positions=mark.positions + rows.ids.numel(),
                pair_tokens=mark.pair_tokens + pair_tokens,
            )
            bar.advance(kept)
            if spill.activations.nearly_full or spill.pairs.runs.nearly_full:
                spill.save_mark(mark)
    if not mark.kept:
        raise UserError(f"corpus {plan.corpus.source!r} has no token that the policy keeps; there is nothing to index")
    spill.save_mark(mark)
    spill.text.refresh()


def _collect_rows(spill: Spill, rows: TokenRows, mark: Mark) -> int:
    """Put what these rows give into the spill; returns the number of tokens whose pairs were counted."""
    plan = spill.plan
    activations, loss = plan.model.activations_and_loss(rows.ids, [plan.site])
    x = activations[plan.site]
    codes = plan.encoder.encode(x[rows.keep.to(x.device)].float()).to("cpu")
    latents, offsets, values = codes.latents.numpy(), codes.offsets.numpy(), codes.values.numpy()
    token = mark.positions + np.flatnonzero(rows.keep.numpy())
    spill.activations.append(latents, np.repeat(token, np.diff(offsets)), values)
    labels = label_rows(rows, plan.corpus, plan.tokenizer).numpy() if plan.labels else None
    loss = loss.cpu().masked_fill(~rows.real[:, 1:], math.nan)
    spill.text.append(
        rows.ids.numpy(), rows.documents.numpy(), rows.real.numpy(), rows.keep.numpy(), loss.numpy(), labels
    )
    if not plan.pair_stride:
        return 0
    chosen = token // plan.policy.context % plan.pair_stride == 0
    entries = np.repeat(chosen, np.diff(offsets))
    counts = np.diff(offsets)[chosen]
    spill.pairs.add(latents[entries], np.concatenate([[0], np.cumsum(counts)]))
    return int(chosen.sum())


def _cut(rows: TokenRows, wanted: int) -> TokenRows:
    """As many of the rows as reach `wanted` kept tokens, so that the batch size does not change what is indexed."""
    reached = rows.keep.sum(1).cumsum(0)
    return rows.first(min(int((reached < wanted).sum()) + 1, len(rows)))
