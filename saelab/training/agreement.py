"""What ranks hold against one another before they train together, so that none works on other data unnoticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saelab.activations.source import ActivationPass
from saelab.config import config_digest
from saelab.corpora.config import CorpusConfig
from saelab.corpora.sources import is_endless, open_source
from saelab.corpora.text_files import FileSource
from saelab.disk import ActivationPaths, sha256
from saelab.ranks import Ranks
from saelab.training.config import TrainConfig
from saelab.training.parallel import ParallelConfig

_ENDS = 2**16  # bytes of each end of a file that are looked at


def agree_on_settings(
    ranks: Ranks, configs: Mapping[Path, TrainConfig], parallel: ParallelConfig, **options: Any
) -> None:
    """Refuse ranks that were started with other settings.

    Raises:
        UserError: naming the rank.
    """
    runs = {directory.name: config_digest(config) for directory, config in configs.items()}
    ranks.agree("settings", _digest([runs, parallel.model_dump(), options]), "the digest of the settings")


def agree_on_data(ranks: Ranks, config: TrainConfig, source: ActivationPass) -> None:
    """Refuse ranks that have another model, other text or another harvest.

    Raises:
        UserError: naming the rank, and what differs.
    """
    if ranks.size == 1:
        return
    origin = source.origin(0)
    ranks.agree("model", origin.model_fingerprint, "the fingerprint of the model")
    ranks.agree("tokenizer", origin.tokenizer_fingerprint, "the fingerprint of the tokenizer")
    if config.activations is not None:
        manifest = ActivationPaths(Path(config.activations)).manifest
        ranks.agree("harvest", sha256(manifest), f"the checksum of {manifest}")
    else:
        ranks.agree("text", _text(config.corpus), f"the digest of corpus {config.corpus.source!r}")


def _text(corpus: CorpusConfig) -> str:
    """Of a text: of files, their names, lengths and both ends; else what its source says it is."""
    source = open_source(corpus)
    if not isinstance(source, FileSource):
        return "" if is_endless(corpus) else _digest(source.identity())
    return _digest([[file.name, file.stat().st_size, _ends(file)] for file in source.files])


def _ends(path: Path) -> str:
    with open(path, "rb") as file:
        content = file.read(_ENDS)
        file.seek(max(0, path.stat().st_size - _ENDS))
        return hashlib.sha256(content + file.read()).hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()
