"""Documents of a Hugging Face dataset, streamed: by name from the Hub, or a local dataset folder."""

from __future__ import annotations

from collections.abc import Iterator

from saelab.corpora.config import HUB_PREFIX, CorpusConfig
from saelab.corpora.documents import Document
from saelab.errors import UserError


class HubSource:
    """Rows of one dataset split, in the dataset's order."""

    endless = False

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config
        self.name = config.source.removeprefix(HUB_PREFIX)

    def read(self, start: int) -> Iterator[Document]:
        import datasets

        config = self.config
        try:
            rows = datasets.load_dataset(
                self.name,
                config.dataset_config,
                split=config.dataset_split,
                revision=config.dataset_revision,
                streaming=True,
            )
        except (OSError, ValueError, RuntimeError) as error:  # datasets' own errors derive from these
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"Hugging Face dataset {self.name!r} can't be opened: {reason}") from error
        for row in rows.skip(start):
            text = row.get(config.column, row)
            if not isinstance(text, str | None):
                raise UserError(
                    f"dataset {self.name!r} has no text in column {config.column!r}; "
                    f"its columns are {', '.join(sorted(row))} (set column)"
                )
            yield Document(text or "")
