"""What the weights alone say about a latent: the tokens that it promotes and suppresses, and its nearest latents."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.models.language_model import LanguageModel
from saelab.ranks.axis import Axis
from saelab.ranks.turns import in_turns

N_LOGITS = 12  # promoted tokens kept per latent, and as many suppressed ones
N_NEIGHBOURS = 10
_CHUNK_ELEMENTS = 2**24  # of the products [latents, vocabulary] and [latents, latents] held at once


def logits(model: LanguageModel, dictionary: Dictionary, axis: Axis) -> Iterator[dict[str, Tensor]]:
    """Tokens whose next-token logit the latent's direction raises and lowers most (final norm's gain, no bias, W_U):
    columns of `schema.LOGITS`, a chunk of latents after the other, on the first rank; the others help."""
    directions = dictionary.decoder_directions()
    count = min(N_LOGITS, model.d_vocab)

    def of(latents: range) -> dict[str, Tensor]:
        weights = model.direct_logits(directions[latents.start : latents.stop]).float()
        best, worst = weights.topk(count, dim=1), weights.topk(count, dim=1, largest=False)
        rows = len(latents)
        return {
            "latent": torch.arange(latents.start, latents.stop).repeat_interleave(2 * count),
            "sign": torch.tensor([1, -1]).repeat_interleave(count).repeat(rows),
            "rank": torch.arange(count).repeat(2 * rows),
            "id": torch.stack([best.indices, worst.indices], 1).flatten().cpu(),
            "weight": torch.stack([best.values, worst.values], 1).flatten().cpu(),
        }

    return in_turns(axis, _chunks(dictionary.d_sae, model.d_vocab), of)


def neighbours(dictionary: Dictionary, axis: Axis) -> Iterator[dict[str, Tensor]]:
    """The latents whose decoder rows have the largest cosine with each latent's; a latent is no neighbour of itself:
    columns of `schema.NEIGHBOURS`, as `logits` gives its own."""
    directions = torch.nn.functional.normalize(dictionary.W_dec.float(), dim=1)
    count = min(N_NEIGHBOURS, dictionary.d_sae - 1)

    def of(latents: range) -> dict[str, Tensor]:
        cosine = directions[latents.start : latents.stop] @ directions.T
        own = torch.arange(latents.start, latents.stop, device=cosine.device)
        cosine[own - latents.start, own] = -torch.inf
        nearest = cosine.topk(count, dim=1)
        return {
            "latent": own.repeat_interleave(count).cpu(),
            "rank": torch.arange(count).repeat(len(latents)),
            "neighbour": nearest.indices.flatten().cpu(),
            "cosine": nearest.values.flatten().cpu(),
        }

    return in_turns(axis, _chunks(dictionary.d_sae, dictionary.d_sae), of)


def _chunks(d_sae: int, width: int) -> Iterator[range]:
    """Latents: as many at a time as keep a [latents, width] product within bounds."""
    rows = max(1, _CHUNK_ELEMENTS // width)
    for first in range(0, d_sae, rows):
        yield range(first, min(first + rows, d_sae))
