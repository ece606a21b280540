"""`saelab calibrate`: a finished dictionary's thresholds, estimated anew and checked on tokens that were kept apart.

The dictionary is replaced in one step; the thresholds of training stay beside the new ones and can be put back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from saelab.activations.opening import open_source
from saelab.config import build
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.dictionaries import artifact
from saelab.dictionaries.calibration import active_per_token, calibrated, calibrated_per_latent
from saelab.dictionaries.config import FeatureChoice, MutualChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, exclusive, staged_directory
from saelab.disk.layout import DictionaryPaths
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError
from saelab.evaluation.config import CalibrateConfig
from saelab.training.origin import recorded, recorded_corpus

_CHECK_SHARE = 0.2  # of all tokens: kept apart from the estimate
_SPLIT = 4096  # tokens that are encoded at a time


@dataclass(frozen=True)
class Calibration:
    """New thresholds, and active latents per token with the old and with them, on tokens that neither saw."""

    dictionary: Dictionary
    before: float
    after: float
    tokens: int
    """Tokens that the estimate rests on."""
    checked: int
    """Other tokens, that the two numbers were counted on."""


def calibrate(config: CalibrateConfig) -> Calibration:
    """Estimate thresholds anew; writes nothing.

    Raises:
        UserError: not a run with a dictionary, one whose thresholds are not estimates, or activations of another model,
            site or token policy.
    """
    dictionary = artifact.load(RunPaths(config.run).dictionary)
    _require_estimated_thresholds(dictionary, config)
    x = _activations(dictionary, config)
    dictionary = dictionary.to(x.device)
    checked = max(1, round(_CHECK_SHARE * len(x)))
    ours, others = x[checked:], x[:checked].split(_SPLIT)
    if config.method == "latent":
        new = calibrated_per_latent(dictionary, ours)
    else:
        new = calibrated(dictionary, ours.split(_SPLIT))
    before, after = (active_per_token(d, others) for d in (dictionary, new))
    return Calibration(new, before, after, len(ours), checked)


def write(run: Path, dictionary: Dictionary) -> None:
    """Put a dictionary with other thresholds in the place of the run's, keeping those of training beside them."""
    with exclusive(RunPaths(run).lock):
        names = DictionaryPaths(RunPaths(run).dictionary)
        trained = names.trained_thresholds if names.trained_thresholds.exists() else names.weights
        threshold, golden = read_tensors(trained)["threshold"], read_tensors(names.golden)["x"]
        with staged_directory(names.root, replace=True) as staging:
            artifact.write(dictionary.to("cpu"), staging, golden)
            write_tensors(DictionaryPaths(staging).trained_thresholds, {"threshold": threshold})


def restore(run: Path) -> None:
    """Put the thresholds of training back: the very dictionary that training left, checksum included.

    Raises:
        UserError: they were never changed.
    """
    names = DictionaryPaths(RunPaths(run).dictionary)
    dictionary = artifact.load(names.root)
    if not names.trained_thresholds.exists():
        raise UserError(f"{run} has the thresholds of its training; there is nothing to restore")
    with exclusive(RunPaths(run).lock):
        threshold, golden = read_tensors(names.trained_thresholds)["threshold"], read_tensors(names.golden)["x"]
        with staged_directory(names.root, replace=True) as staging:
            artifact.write(replace(dictionary, threshold=threshold), staging, golden)


def _require_estimated_thresholds(dictionary: Dictionary, config: CalibrateConfig) -> None:
    allocation, architecture = dictionary.config.allocation, dictionary.config.architecture
    if dictionary.config.rule != "threshold":
        raise UserError(f"{config.run}: a {architecture} dictionary keeps its k best latents; it has no thresholds")
    if not isinstance(allocation, MutualChoice | FeatureChoice):
        raise UserError(f"{config.run}: thresholds of a {architecture} dictionary were learnt with its weights")
    if config.method == "latent" and not isinstance(allocation, FeatureChoice):
        raise UserError(
            f"{config.run}: a {architecture} dictionary has one threshold for all latents; use --method factor"
        )


def _activations(dictionary: Dictionary, config: CalibrateConfig) -> Float[Tensor, "n d_in"]:
    """Activations at the dictionary's site in random order: those to estimate on and those to count on."""
    description = dictionary.config
    policy = build(TokenPolicy, description.policy, where=f"the token policy of {config.run}")
    total = round(config.tokens / (1 - _CHECK_SHARE))
    source = open_source(
        config.activations, config.model or description.model, description.site,
        CorpusConfig() if config.activations else recorded_corpus(config.run), policy,
        buffer=total, device=config.device, dtype=recorded(config.run).dtype or "float32", seed=config.seed,
    )  # fmt: skip
    where = config.activations or config.model or description.model
    if source.origin.model_fingerprint != description.model_fingerprint:
        raise UserError(f"{where} is not of the model that {config.run} was trained on ({description.model})")
    if source.origin.policy != policy:
        raise UserError(f"{where} was harvested under another token policy than {config.run} was trained under")
    return source.sample(total).x
