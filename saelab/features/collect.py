"""What the pass over model and text gives, spilled to disk as it comes: the first rank's work."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from saelab.config import differences
from saelab.corpora import Cursor
from saelab.disk import read_json, write_json
from saelab.errors import UserError
from saelab.features.coactivation import PairCounts
from saelab.features.plan import Plan
from saelab.features.reading import read
from saelab.features.spill import SortedRuns
from saelab.features.text import TextColumns
from saelab.progress import track
from saelab.ranks.axis import Axis


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

    @property
    def place(self) -> Cursor:
        """Where the text goes on."""
        return Cursor(**self.cursor)

    def wanted(self, plan: Plan) -> int:
        """Tokens that are still to be kept."""
        return 0 if self.exhausted else plan.config.tokens - self.kept


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


def collect(spill: Spill, axis: Axis) -> None:
    """Read the text once, from the spill's mark to the wanted number of tokens or the corpus's end.

    Args:
        axis: the ranks that share the reading; this is the first of them. The others call `read` alone.
    """
    plan, mark = spill.plan, spill.mark
    with track(plan.config.tokens, "index", unit="tokens", done=mark.kept) as bar:
        for batch in read(plan, mark.place, mark.wanted(plan), axis):
            before, mark = mark, _put(spill, batch, mark)
            bar.advance(mark.kept - before.kept)
            if spill.activations.nearly_full or spill.pairs.runs.nearly_full:
                spill.save_mark(mark)
    if not mark.kept:
        raise UserError(f"corpus {plan.corpus.source!r} has no token that the policy keeps; there is nothing to index")
    spill.save_mark(replace(mark, exhausted=mark.kept < plan.config.tokens))
    spill.text.refresh()


def _put(spill: Spill, batch: Mapping[str, Tensor], mark: Mark) -> Mark:
    """Put a batch, as `read` gives it, into the spill; returns the mark behind it."""
    plan, parts = spill.plan, {name: tensor.numpy() for name, tensor in batch.items()}
    kept, latents, counts = parts["kept"], parts["latents"], np.diff(parts["offsets"])
    token = mark.positions + np.flatnonzero(kept)
    spill.activations.append(latents, np.repeat(token, counts), parts["values"])
    spill.text.append(parts["ids"], parts["documents"], parts["real"], kept, parts["loss"], parts.get("labels"))
    pair_tokens = 0
    if plan.pair_stride:
        chosen = token // plan.policy.context % plan.pair_stride == 0
        spill.pairs.add(latents[np.repeat(chosen, counts)], np.concatenate([[0], np.cumsum(counts[chosen])]))
        pair_tokens = int(chosen.sum())
    return replace(
        mark,
        cursor=Cursor(*parts["next"].tolist()).to_json(),
        kept=mark.kept + len(token),
        positions=mark.positions + kept.size,
        pair_tokens=mark.pair_tokens + pair_tokens,
    )
