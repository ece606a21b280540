"""Finding a few rows in a Parquet table that is sorted by its first column.

The footer's minimum and maximum of every row group say where a key's rows are; one or two groups are then read and cut
exactly. On 32M rows this takes 1 ms, where a DuckDB query over the same file takes 16 to 95 ms (it plans over every row
group); DuckDB answers the questions that cut across latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from saelab.errors import UserError
from saelab.features.schema import Table


class SortedTable:
    """One table of an index, for reading by key. Safe to share between threads: each call opens the file for itself.

    Raises:
        UserError: the file is missing, damaged, or has other columns than `table`.
    """

    def __init__(self, table: Table, root: Path) -> None:
        self.table, self.path = table, table.path(root)
        with damage_reported(self.path):
            self._metadata = pq.read_metadata(self.path)
            columns = self._metadata.schema.to_arrow_schema()
        if not columns.equals(table.columns):
            raise UserError(f"{self.path} has other columns than this version of saelab writes; build the index again")
        groups = [self._metadata.row_group(n).column(0).statistics for n in range(self._metadata.num_row_groups)]
        self._lowest = np.array([group.min for group in groups], np.int64)
        self._highest = np.array([group.max for group in groups], np.int64)

    @property
    def rows(self) -> int:
        return self._metadata.num_rows

    def at(self, key: int) -> pa.Table:
        """The rows whose first column is `key`, in the file's order."""
        return self.between(key, key + 1)

    def between(self, low: int, high: int) -> pa.Table:
        """The rows whose first column is at least `low` and below `high`."""
        # Groups are in order, so those that may hold the range are neighbours.
        first = int(np.searchsorted(self._highest, low, side="left"))
        last = int(np.searchsorted(self._lowest, high, side="left"))
        rows = self._read(range(first, last))
        keys = rows.column(0).to_numpy()
        begin, end = np.searchsorted(keys, [low, high])
        return rows.slice(begin, end - begin)

    def stretches(self, ranges: Sequence[tuple[int, int]], column: str) -> list[NDArray]:
        """One column at the keys of each half-open range, every row group read once.

        Only for a table whose first column counts 0, 1, 2, … (and ranges inside it): a key is its row's number.
        """
        first_groups = np.searchsorted(self._highest, [low for low, _ in ranges]).tolist()
        last_groups = np.searchsorted(self._highest, [high - 1 for _, high in ranges]).tolist()
        groups = {g for first, last in zip(first_groups, last_groups, strict=True) for g in range(first, last + 1)}
        with damage_reported(self.path), pq.ParquetFile(self.path, metadata=self._metadata) as file:
            read = {
                group: file.read_row_group(group, columns=[column], use_threads=False).column(0).to_numpy()
                for group in sorted(groups)
            }
        found = []
        for (low, high), first, last in zip(ranges, first_groups, last_groups, strict=True):
            values = np.concatenate([read[group] for group in range(first, last + 1)])
            start = int(self._lowest[first])
            found.append(values[low - start : high - start])
        return found

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole table, or some of its columns."""
        return self._read(range(self._metadata.num_row_groups), columns)

    def _read(self, groups: range, columns: Sequence[str] | None = None) -> pa.Table:
        if not groups:
            return self.table.columns.empty_table().select(columns or self.table.columns.names)
        with damage_reported(self.path), pq.ParquetFile(self.path, metadata=self._metadata) as file:
            return file.read_row_groups(groups, columns=columns, use_threads=False).combine_chunks()


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn what Arrow or DuckDB says of a missing or damaged file into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; build the index again") from None
    except (pa.ArrowException, duckdb.Error, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); build the index again") from None
