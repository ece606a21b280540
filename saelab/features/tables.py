"""Writing the index's Parquet tables in row groups of even size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from saelab.features.schema import Table


class TableWriter:
    """Write `table` under `root`, piece by piece; rows must come in the table's sort order.

    Use as a context manager: the file is complete when the block ends.
    """

    def __init__(self, table: Table, root: Path) -> None:
        self.table, self.rows = table, 0
        # Sorted int64 token numbers: differences take half the room of a dictionary, and no longer to read.
        plain = [field.name for field in table.columns if field.type == pa.int64()]
        self._writer = pq.ParquetWriter(
            table.path(root),
            table.columns,
            compression="zstd",
            compression_level=1,
            use_dictionary=[  # pyright: ignore[reportArgumentType]  # a list of columns is fine, the stubs are not
                name for name in _leaves(table.columns) if name not in plain
            ],
            write_statistics=[table.columns.names[0]],  # pyright: ignore[reportArgumentType]  # all that is looked at
            column_encoding=dict.fromkeys(plain, "DELTA_BINARY_PACKED"),
        )
        self._pending: list[pa.Table] = []
        self._n_pending = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._write(whole_groups_only=False)
        self._writer.close()

    def append(self, columns: Mapping[str, Any]) -> None:
        """Add rows: an array (NumPy or Arrow) or list per column of the table."""
        arrays = [_array(columns[field.name], field.type) for field in self.table.columns]
        piece = pa.Table.from_arrays(arrays, schema=self.table.columns)
        self._pending.append(piece)
        self._n_pending += piece.num_rows
        self.rows += piece.num_rows
        if self._n_pending >= self.table.rows_per_group:
            self._write(whole_groups_only=True)

    def _write(self, whole_groups_only: bool) -> None:
        if not self._n_pending:
            return
        rows = pa.concat_tables(self._pending).combine_chunks()
        size = self.table.rows_per_group
        length = rows.num_rows // size * size if whole_groups_only else rows.num_rows
        self._writer.write_table(rows.slice(0, length), row_group_size=size)
        self._pending, self._n_pending = [rows.slice(length)], rows.num_rows - length


def _leaves(columns: pa.Schema) -> list[str]:
    """Column names as Parquet spells them: a list's numbers are its leaf."""
    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in columns]


def lists(offsets: NDArray, values: NDArray, kind: pa.DataType) -> pa.Array:
    """A list column from flat `values`: entry i is `values[offsets[i]:offsets[i+1]]`."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _array(values, kind))


def lists_of(rows: Sequence[NDArray], kind: pa.DataType) -> pa.Array:
    """A list column from one array per row."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    return lists(offsets, np.concatenate(rows) if len(rows) else np.empty(0), kind)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray):
        # NaN marks what is not known; Parquet says null
        return pa.array(values.astype(kind.to_pandas_dtype(), copy=False), kind, from_pandas=True)
    return pa.array(values, kind)
