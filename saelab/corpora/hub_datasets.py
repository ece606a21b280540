"""Documents of a Hugging Face dataset: by name from the Hub, streamed or downloaded, or from a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.corpora.config import HUB_PREFIX, CorpusConfig
from saelab.corpora.documents import Document
from saelab.corpora.text_files import state_of
from saelab.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_BATCH = 256
_HUB_TIMEOUT = 10  # seconds


class HubSource:
    """Rows of one dataset split, in the dataset's order."""

    endless = False

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config
        self.name = config.source.removeprefix(HUB_PREFIX)
        folder = Path(self.name).expanduser()
        self.folder = folder if folder.is_dir() else None
        self.commit = None if self.folder is not None else _commit(self.name, config.dataset_revision)

    def read(self, start: int) -> Iterator[Document]:
        """Document number `start` and all after it; in a dataset that lies on this disk it is found at once."""
        column = self.config.column
        with self._one_sentence():
            rows = self._open()
            names = rows.column_names  # None where only reading tells
            if names is not None and column in names:
                rows = rows.select_columns([column])  # no other is read
            for batch in rows.skip(start).iter(_BATCH):
                texts: list[Any] = batch.get(column, [0])  # pyright: ignore[reportAttributeAccessIssue]
                if not all(isinstance(text, str | None) for text in texts):
                    raise UserError(
                        f"dataset {self.name!r} has no text in column {column!r}; "
                        f"its columns are {', '.join(sorted(names or batch))} (set column)"
                    )
                yield from (Document(text or "") for text in texts)

    def identity(self) -> str | None:
        """The commit of a dataset on the Hub, the state of the files of a local one."""
        config = self.config
        content = self.commit
        if self.folder is not None:
            content = state_of(sorted(file for file in self.folder.rglob("*") if file.is_file()))
        if content is None:
            return None
        return f"{self.name} {config.dataset_config} {config.dataset_split}\n{content}"

    def _open(self) -> Dataset | IterableDataset:
        import datasets

        config = self.config
        if self.folder is not None and _is_saved(self.folder):
            return self._saved(self.folder)
        return datasets.load_dataset(
            str(self.folder or self.name),
            config.dataset_config,
            split=config.dataset_split,
            revision=self.commit or config.dataset_revision,
            streaming=config.dataset_streaming,
        )

    def _saved(self, folder: Path) -> Dataset:
        """What `save_to_disk` wrote: one split, or several."""
        import datasets

        found = datasets.load_from_disk(folder)
        splits = found if isinstance(found, datasets.DatasetDict) else {str(found.split or "train"): found}
        if self.config.dataset_split not in splits:
            raise UserError(
                f"dataset {self.name!r} has no split {self.config.dataset_split!r}; "
                f"set dataset_split to {' or '.join(map(str, splits))}"
            )
        return splits[self.config.dataset_split]

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        from datasets.exceptions import DatasetsError

        try:
            yield
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            cause = error.__cause__ or error  # a DatasetGenerationError only says that there was another
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            raise UserError(f"Hugging Face dataset {self.name!r} can't be read: {reason}") from error


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of the library datasets wrote the folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _commit(name: str, revision: str | None) -> str | None:
    """The commit that `revision` (default: the main branch) is now; None where the Hub doesn't say."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return HfApi().dataset_info(name, revision=revision, timeout=_HUB_TIMEOUT).sha
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.TransportError):
        return None  # opening it says what is wrong
