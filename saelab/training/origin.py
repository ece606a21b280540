"""What a dictionary was made on, looked up and held against what it is about to be used on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from saelab.activations.manifest import Manifest
from saelab.config import build, read_yaml
from saelab.corpora import CorpusConfig
from saelab.dictionaries.config import DictionaryConfig
from saelab.disk import RunPaths
from saelab.errors import UserError
from saelab.models import LanguageModel, Site


class Recorded(NamedTuple):
    """What a run knows of its making; None for a dictionary that comes alone."""

    corpus: CorpusConfig | None
    dtype: str | None
    """Precision of the language model."""


def recorded(run: Path) -> Recorded:
    """As the run's config.yaml, or the harvested activations named there, record it."""
    where = RunPaths(run).config
    if not where.is_file():
        return Recorded(None, None)
    settings = read_yaml(where)
    if settings.get("activations"):
        harvest = Manifest.load(Path(settings["activations"])).config
        return Recorded(harvest.corpus, harvest.model_dtype)
    corpus = build(CorpusConfig, settings.get("corpus") or {}, where=f"corpus of {where}")
    return Recorded(corpus, settings.get("dtype"))


def recorded_corpus(run: Path) -> CorpusConfig:
    """The text a run was trained on.

    Raises:
        UserError: it records none.
    """
    corpus = recorded(run).corpus
    if corpus is None:
        raise UserError(f"{run} records no corpus; say which text to read: --corpus.source microworld")
    return corpus


def written_sites(config: DictionaryConfig) -> tuple[Site, ...]:
    """Where a dictionary's reconstruction goes: its own site, or a transcoder's target sites, in that order."""
    return tuple(Site.parse(site) for site in config.target_sites)


def written_before_read(config: DictionaryConfig) -> Site | None:
    """A target that the model computes before the site that the dictionary reads: nothing read could change it."""
    read = Site.parse(config.site)
    return next((s for s in written_sites(config) if Site(s.layer, s.kind) < Site(read.layer, read.kind)), None)


def check_fit(name: str, config: DictionaryConfig, site: Site, model: LanguageModel) -> None:
    """Refuse to use at `site` of this model a dictionary that was trained on another.

    Raises:
        UserError: the site is not in the model, its width differs, or a fingerprint does; `name` opens the sentence.
    """
    model.check(site)
    advice = f"give the model it was trained on ({config.model})"
    if model.width(site) != config.d_in:
        raise UserError(
            f"{name}: the dictionary reads {config.d_in} numbers, but {site} of {model.name} has "
            f"{model.width(site)}; {advice}"
        )
    for target in config.targets:
        written = Site.parse(target.site)
        model.check(written)
        if model.width(written) != target.width:
            raise UserError(
                f"{name}: the dictionary writes {target.width} numbers to {written}, which has "
                f"{model.width(written)} in {model.name}; {advice}"
            )
    if config.tokenizer_fingerprint and config.tokenizer_fingerprint != model.tokenizer_fingerprint:
        raise UserError(
            f"{name}: the dictionary was trained with another tokenizer than that of {model.name}; {advice}"
        )
    if config.model_fingerprint and config.model_fingerprint != model.fingerprint:
        raise UserError(
            f"{name}: the weights of {model.name} are not those that the dictionary was trained on; {advice}"
        )
