"""From the spilled pass to the tables: one sweep over the latents, then what the weights say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

import saelab
from saelab.disk import write_json
from saelab.features import schema
from saelab.features.collect import Spill
from saelab.features.decoder_tables import logits, neighbours
from saelab.features.effects import Measured, help_with_effects, write_effects
from saelab.features.grouping import rank_in_group
from saelab.features.label_scores import label_scores
from saelab.features.plan import Plan
from saelab.features.spill import SortedRuns
from saelab.features.summaries import Sampling, Summary, merge, summarise, top_tokens
from saelab.features.tables import TableWriter, lists, lists_of
from saelab.features.text import TextColumns
from saelab.features.vocabulary import write_vocabulary
from saelab.features.windows import windows
from saelab.progress import track
from saelab.ranks.mesh import Mesh

N_TOP_TOKENS = 10  # token ids kept in a latent's own row
LATENTS_PER_TOKEN = 100  # latents kept per token id, for the search by token
_CHUNK = 2**20  # tokens copied at once


def write_index(spill: Spill, root: Path, mesh: Mesh) -> None:
    """Write every table of the index, and index.json last: the first rank's work.

    Args:
        mesh: all ranks; the others call `help_to_write`.
    """
    plan = spill.plan
    with TableWriter(schema.TOKENS, root) as writer:
        write_tokens(spill.text, writer)
    latents = LatentTables(spill.activations, spill.text, plan.sampling, spill.mark.kept)
    latents.write(root, spill.root / "mass", plan.model.d_vocab)
    with TableWriter(schema.COACTIVATION, root) as writer:
        spill.pairs.write(writer)
    with TableWriter(schema.VOCABULARY, root) as writer:
        write_vocabulary(writer, plan.tokenizer, plan.model.d_vocab)
    with TableWriter(schema.EFFECTS, root) as writer:
        measured = write_effects(spill, root, writer, mesh)
    for table, parts in _of_weights(plan, mesh).items():
        with TableWriter(table, root) as writer:
            for columns in parts:
                writer.append({name: tensor.numpy() for name, tensor in columns.items()})
    write_json(schema.summary_path(root), _summary(spill, latents, measured))


def help_to_write(plan: Plan, mesh: Mesh) -> None:
    """The other ranks' part in `write_index`: what needs the model or the weights, and nothing of the spill."""
    help_with_effects(plan, mesh)
    for _ in chain.from_iterable(_of_weights(plan, mesh).values()):
        pass


def _of_weights(plan: Plan, mesh: Mesh) -> dict[schema.Table, Iterator[dict[str, Tensor]]]:
    """Columns of the tables that the weights alone decide, in the order in which they are asked for."""
    has_logits = plan.why_no_logits is None
    return {
        schema.LOGITS: logits(plan.model, plan.encoder, mesh.world) if has_logits else iter(()),
        schema.NEIGHBOURS: neighbours(plan.encoder, mesh.world),
    }


class LatentTables:
    """The sweep over the sorted activations that fills the tables with rows per latent.

    Args:
        kept: tokens on which latents could be active; densities are shares of it.
    """

    def __init__(self, runs: SortedRuns, text: TextColumns, sampling: Sampling, kept: int) -> None:
        self.runs, self.text, self.sampling, self.kept = runs, text, sampling, kept
        self.peaks = runs.peaks()
        self.totals = np.zeros(runs.n_major)  # summed activation of each latent
        self.n_activations = self.n_alive = 0

    def write(self, root: Path, mass_folder: Path, d_vocab: int) -> None:
        """Write activations, latents, examples and labels in one sweep, then the latents of each token id."""
        # (token id, latent) → mass: the same sums sorted the other way round. A token id has at most all latents.
        mass = SortedRuns(mass_folder, d_vocab, max(self.runs.capacity, self.runs.n_major))
        mass.truncate(0)
        self._sweep(root, mass)
        with TableWriter(schema.TOKEN_LATENTS, root) as writer:
            _write_token_latents(mass, self.totals, writer)

    def _sweep(self, root: Path, mass: SortedRuns) -> None:
        label_totals = self.text.label_totals()
        with ExitStack() as stack, track(self.runs.n_major, "write", unit="latents") as bar:
            names = (schema.ACTIVATIONS, schema.LATENTS, schema.EXAMPLES, schema.LABELS)
            activations, latents, examples, labels = (stack.enter_context(TableWriter(t, root)) for t in names)
            before: Summary | None = None
            for piece in self.runs.pieces():
                activations.append({"latent": piece.major, "token": piece.minor, "value": piece.values})
                summary = summarise(piece, self.peaks, self.text, self.sampling)
                summary = summary if before is None else merge(before, summary, self.sampling)
                if not piece.final:
                    before = summary
                    continue
                whole = before is None  # the piece holds all activations of its latents
                slices = [(piece.keys, piece.values)] if whole else self.runs.slices(piece.first)
                before = None
                self._write_latents(summary, latents)
                self._write_examples(summary, slices, examples)
                self._write_labels(summary, label_totals, labels)
                mass.append(summary.mass_keys & 0xFFFFFFFF, summary.mass_keys >> 32, summary.mass.astype(np.float32))
                self.totals[piece.first : piece.last] = summary.total
                bar.advance(piece.last - piece.first)
            self.n_activations = activations.rows

    def _write_latents(self, summary: Summary, writer: TableWriter) -> None:
        n_active = summary.n_active
        alive = n_active > 0
        self.n_alive += int(alive.sum())
        tops = top_tokens(summary, N_TOP_TOKENS)
        n, bins = summary.histogram.shape
        writer.append(
            {
                "latent": np.arange(summary.first, summary.last),
                "n_active": n_active,
                "density": n_active / self.kept,
                "mean_activation": np.where(alive, summary.total / np.maximum(n_active, 1), np.nan),
                "max_activation": np.where(alive, self.peaks[summary.first : summary.last], np.nan),
                "histogram": lists(np.arange(n + 1) * bins, summary.histogram.reshape(-1), pa.int32()),
                "top_tokens": lists_of([ids for ids, _ in tops], pa.int32()),
                "top_token_share": lists_of([share for _, share in tops], pa.float32()),
            }
        )

    def _write_examples(self, summary: Summary, slices: list[tuple[NDArray, NDArray]], writer: TableWriter) -> None:
        for part in windows(summary.examples, slices, self.text):
            chosen = part.examples
            writer.append(
                {
                    "latent": chosen.latent,
                    "quantile": chosen.quantile,
                    "rank": part.rank,
                    "token": chosen.token,
                    "document": chosen.document,
                    "value": chosen.value,
                    "tokens": lists(part.offsets, part.tokens, pa.int32()),
                    "values": lists(part.offsets, part.values, pa.float32()),
                    "focus": part.focus,
                }
            )

    def _write_labels(self, summary: Summary, totals: NDArray, writer: TableWriter) -> None:
        if not self.text.labels:
            return
        scores = label_scores(summary.label_hits, summary.n_active_by_quarter, totals, summary.first)
        names = np.array(self.text.labels)
        writer.append(
            {
                "latent": scores.latent,
                "rank": scores.rank,
                "label": pa.array(names[scores.label], pa.string()),
                "f1": scores.f1,
                "precision": scores.precision,
                "recall": scores.recall,
                "threshold": scores.quarter / schema.QUARTERS * self.peaks[scores.latent],
            }
        )


def write_tokens(text: TextColumns, writer: TableWriter) -> None:
    for begin in range(0, len(text), _CHUNK):
        token = np.arange(begin, min(begin + _CHUNK, len(text)))
        here = slice(begin, begin + len(token))
        writer.append(
            {
                "token": token,
                "id": text.ids[here],
                "document": text.documents[here],
                "position": token % text.context,
                "row": token // text.context,
                "real": text.real[here],
                "kept": text.kept[here],
                "loss": text.loss[here],
            }
        )


def _write_token_latents(mass: SortedRuns, totals: NDArray, writer: TableWriter) -> None:
    """For each token id the latents with the most activation on it. A token id has at most d_sae of them."""
    for piece in mass.pieces():
        order = np.lexsort((piece.minor, -piece.values, piece.major))
        ids, latent, values = piece.major[order], piece.minor[order], piece.values[order]
        rank = rank_in_group(ids)
        best = rank < LATENTS_PER_TOKEN
        writer.append(
            {
                "id": ids[best],
                "rank": rank[best],
                "latent": latent[best],
                "mass": values[best],
                "share": values[best] / totals[latent[best]],
            }
        )


def _summary(spill: Spill, latents: LatentTables, measured: Measured) -> dict[str, Any]:
    """index.json: where the numbers come from."""
    plan, mark, dictionary = spill.plan, spill.mark, spill.plan.dictionary
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "saelab_version": saelab.__version__,
        "dictionary": {
            "architecture": dictionary.config.architecture,
            "site": dictionary.site,
            "targets": [target.site for target in dictionary.config.targets],
            "d_in": dictionary.d_in,
            "k": dictionary.config.k,
            "scale": dictionary.config.scale,
            "weights_sha256": dictionary.config.weights_sha256,
        },
        "model": {"name": plan.model.name, "fingerprint": plan.model.fingerprint},
        "corpus": plan.corpus.model_dump(mode="json"),
        "policy": plan.policy.model_dump(mode="json"),
        "settings": plan.settings,
        "d_sae": dictionary.d_sae,
        "context": plan.policy.context,
        "n_tokens": mark.kept,
        "n_positions": mark.positions,
        "n_documents": spill.text.n_documents(),
        "corpus_exhausted": mark.exhausted,
        "n_activations": latents.n_activations,
        "l0": latents.n_activations / mark.kept,
        "n_alive": latents.n_alive,
        "labels": list(plan.labels),
        "groups": [group.model_dump(mode="json") for group in plan.groups],
        "effects": measured._asdict(),
        "coactivation_tokens": mark.pair_tokens,
        "has_logits": plan.why_no_logits is None,
        "why_no_logits": plan.why_no_logits,
    }  # fmt: skip
