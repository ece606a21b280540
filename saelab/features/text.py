"""The indexed text, token by token, as files that are read through memory maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray

from saelab.features.spill import Column


class TextColumns:
    """What is known of every position, padding included; token number = row * context + position.

    Args:
        folder: where the columns lie.
        context: tokens per row.
        labels: names of the labels that tokens may carry; () where the text has none.
    """

    def __init__(self, folder: Path, context: int, labels: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.context, self.labels = context, labels
        self._columns = {
            "ids": Column(folder / "ids.bin", np.int32),
            "documents": Column(folder / "documents.bin", np.int32),
            "real": Column(folder / "real.bin", np.bool_),
            "kept": Column(folder / "kept.bin", np.bool_),
            "loss": Column(folder / "loss.bin", np.float32),
        }
        if labels:  # one bit per label
            self._columns["labels"] = Column(folder / "labels.bin", np.uint8, (len(labels) + 7) // 8)
        self.refresh()

    def __len__(self) -> int:
        return len(self._columns["ids"])

    def append(
        self,
        ids: NDArray,
        documents: NDArray,
        real: Bool[np.ndarray, "rows context"],
        kept: Bool[np.ndarray, "rows context"],
        loss: Float32[np.ndarray, "rows context-1"],
        labels: Bool[np.ndarray, "rows context n_labels"] | None,
    ) -> None:
        """Add whole rows. A row's last position has nothing to predict: its loss is NaN (null in the table); so is that
        of predicting padding."""
        padded = np.full(ids.shape, np.nan, np.float32)
        padded[:, :-1] = loss
        parts = {"ids": ids, "documents": documents, "real": real, "kept": kept, "loss": padded}
        for name, values in parts.items():
            self._columns[name].append(values.reshape(-1))
        if self.labels:
            if labels is None:
                raise ValueError("labels were promised and are missing")
            self._columns["labels"].append(np.packbits(labels.reshape(-1, len(self.labels)), axis=1))

    def lengths(self) -> list[int]:
        return [len(column) for column in self._columns.values()]

    def truncate(self, tokens: int) -> None:
        """Keep the first `tokens` positions."""
        for column in self._columns.values():
            column.truncate(tokens)
        self.refresh()

    def refresh(self) -> None:
        """Map the columns as they are now; call after the last `append`, before reading."""
        self.ids, self.documents, self.real, self.kept, self.loss = (
            self._columns[name].read() for name in ("ids", "documents", "real", "kept", "loss")
        )
        self._packed_labels = self._columns["labels"].read() if self.labels else None

    def labels_at(self, tokens: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "n n_labels"]:
        """0 or 1 for every label at each of `tokens`."""
        if self._packed_labels is None:
            return np.zeros((len(tokens), 0), np.uint8)
        return np.unpackbits(self._packed_labels[tokens], axis=1, count=len(self.labels))

    def n_documents(self, chunk: int = 2**20) -> int:
        """Documents that the text holds at least a part of (they come one after another)."""
        changes = 0
        for begin in range(0, len(self), chunk):
            changes += int(np.count_nonzero(np.diff(self.documents[begin : begin + chunk + 1])))
        return changes + (len(self) > 0)

    def label_totals(self, chunk: int = 2**18) -> Int64[np.ndarray, "n_labels"]:
        """Kept tokens that carry each label."""
        totals = np.zeros(len(self.labels), np.int64)
        for begin in range(0, len(self), chunk):
            tokens = begin + np.flatnonzero(self.kept[begin : begin + chunk])
            totals += self.labels_at(tokens).sum(axis=0, dtype=np.int64)
        return totals
