"""`saelab steer`: a prompt, continued with and without the edits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.activations.forward import tokenizer_of, without_sinks
from saelab.config import build
from saelab.corpora import TokenPolicy, pack, separator_id
from saelab.dictionaries.artifact import load
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths
from saelab.errors import UserError
from saelab.evaluation.text import held_out
from saelab.models import LanguageModel, Positions, Site
from saelab.steering.config import SteerConfig
from saelab.steering.edits import as_edits
from saelab.steering.steered import Sampling, largest_activations, side_by_side
from saelab.training.origin import check_fit, recorded

_ROWS = 8  # that go through the model at a time


class SteeredText(NamedTuple):
    """One continuation of the prompt."""

    strength: float | None
    """None: mode zero, or the model as it is."""
    edited: bool
    """False: the model as it is."""
    seed: int
    """Of the draw."""
    text: str
    """What was written after the prompt."""


def steer(config: SteerConfig, model: LanguageModel | None = None) -> list[SteeredText]:
    """Continue the prompt as the model would, and then at each strength; of each as many texts as `samples` says.

    Args:
        model: a model that is loaded already; else the dictionary's own is loaded.

    Raises:
        UserError: no dictionary there, a latent it does not have, a model that it does not fit or without a tokenizer,
            or positions that the text does not reach.
    """
    dictionary = load(config.run)
    for strength in config.strengths:
        as_edits(config.edits(strength), dictionary.d_sae)
    model = model or LanguageModel.load(
        config.model or dictionary.model_name, dtype=recorded(config.run).dtype or "float32", device=config.device
    )
    tokenizer = tokenizer_of(model)
    check_fit(str(config.run), dictionary.config, Site.parse(dictionary.site), model)
    dictionary, prompt = dictionary.to(model.device), prompt_ids(model, config.prompt)
    check_reached(config, len(prompt))
    units = largest_of(config.run, model, dictionary, config)
    texts = [
        side_by_side(
            model,
            dictionary,
            prompt,
            [(None, []), *((strength, config.edits(strength)) for strength in config.strengths)],
            sampling=Sampling(config.max_new_tokens, config.temperature, config.top_k, config.top_p, seed),
            method=config.method,
            units=units,
            positions=config.positions,
        )
        for seed in config.seeds
    ]
    return [
        SteeredText(text.strength, variant > 0, seed, str(tokenizer.decode(text.ids)))
        for variant, samples in enumerate(zip(*texts, strict=True))
        for seed, text in zip(config.seeds, samples, strict=True)
    ]


def check_reached(config: SteerConfig, prompt: int) -> None:
    """Raise UserError for positions beyond what the model reads (the last new token is written, not read)."""
    positions = Positions.parse(config.positions)
    read = prompt + config.max_new_tokens - 1
    if positions is not None and positions.start_in(prompt) >= read:
        raise UserError(
            f"positions {config.positions!r}: the prompt of {prompt} tokens and max_new_tokens {config.max_new_tokens} "
            f"reach position {read - 1}, so nothing would be edited"
        )


def prompt_ids(model: LanguageModel, prompt: str) -> Int[Tensor, "position"]:
    """The prompt as the start of a document: behind the separator that documents have in training."""
    tokenizer = tokenizer_of(model)
    separator = separator_id(tokenizer)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return torch.tensor(ids if separator is None else [separator, *ids], dtype=torch.int64)


def largest_of(run: Path, model: LanguageModel, dictionary: Dictionary, config: SteerConfig) -> Float[Tensor, "d_sae"]:
    """Largest activation of the edited latents (0 elsewhere): from the run's feature index, else measured on its text.

    Raises:
        UserError: one of them never fired there, so that a strength has nothing to count.
    """
    if RunPaths(run).features.is_dir():
        from saelab.features.index import FeatureIndex

        index = FeatureIndex(RunPaths(run).features)
        units = torch.zeros(dictionary.d_sae)
        for latent in config.latent:
            units[latent] = index.latent(latent).max_activation or 0.0
    else:
        policy = build(TokenPolicy, dictionary.config.policy, where=f"token policy of {run}")
        corpus = held_out(run, None, recorded(run).corpus)
        chunks = -(-config.unit_tokens // (_ROWS * policy.context))
        rows = pack(corpus, tokenizer_of(model), policy, rows=_ROWS, limit=chunks * _ROWS)
        units = largest_activations(model, dictionary, without_sinks(model, policy, rows))
    silent = [latent for latent in config.latent if units[latent] == 0]
    if silent and config.mode in ("add", "clamp"):
        raise UserError(f"latent {silent[0]} never fired on the text looked at, so strengths have no unit; try another")
    return units
