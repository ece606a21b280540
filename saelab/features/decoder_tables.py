"""What the weights alone say about a latent: the tokens that it promotes and suppresses, and its nearest latents."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.features.schema import LOGITS, NEIGHBOURS
from saelab.features.tables import TableWriter
from saelab.models.language_model import LanguageModel

N_LOGITS = 12  # promoted tokens kept per latent, and as many suppressed ones
N_NEIGHBOURS = 10
_CHUNK_ELEMENTS = 2**24  # of the products [latents, vocabulary] and [latents, latents] held at once


def write_logits(writer: TableWriter, model: LanguageModel, dictionary: Dictionary) -> None:
    """Tokens whose next-token logit the latent's direction raises and lowers most (final norm's gain, no bias, W_U)."""
    assert writer.table is LOGITS
    for first, directions in _chunks(dictionary.decoder_directions(), model.d_vocab):
        weights = model.direct_logits(directions).float()
        count = min(N_LOGITS, weights.shape[1])
        best, worst = weights.topk(count, dim=1), weights.topk(count, dim=1, largest=False)
        rows = len(directions)
        latent = torch.arange(first, first + rows).repeat_interleave(2 * count)
        writer.append(
            {
                "latent": latent.numpy(),
                "sign": torch.tensor([1, -1]).repeat_interleave(count).repeat(rows).numpy(),
                "rank": torch.arange(count).repeat(2 * rows).numpy(),
                "id": torch.stack([best.indices, worst.indices], 1).flatten().cpu().numpy(),
                "weight": torch.stack([best.values, worst.values], 1).flatten().cpu().numpy(),
            }
        )


def write_neighbours(writer: TableWriter, dictionary: Dictionary) -> None:
    """The latents whose decoder rows have the largest cosine with each latent's; a latent is no neighbour of itself."""
    assert writer.table is NEIGHBOURS
    directions = torch.nn.functional.normalize(dictionary.W_dec.float(), dim=1)
    count = min(N_NEIGHBOURS, dictionary.d_sae - 1)
    for first, part in _chunks(directions, dictionary.d_sae):
        cosine = part @ directions.T
        own = torch.arange(first, first + len(part), device=cosine.device)
        cosine[torch.arange(len(part), device=cosine.device), own] = -torch.inf
        nearest = cosine.topk(count, dim=1)
        writer.append(
            {
                "latent": own.repeat_interleave(count).cpu().numpy(),
                "rank": torch.arange(count).repeat(len(part)).numpy(),
                "neighbour": nearest.indices.flatten().cpu().numpy(),
                "cosine": nearest.values.flatten().cpu().numpy(),
            }
        )


def _chunks(directions: Float[Tensor, "F d"], width: int) -> Iterator[tuple[int, Float[Tensor, "chunk d"]]]:
    """(first latent, rows): as many rows at a time as keep a [rows, width] product within bounds."""
    rows = max(1, _CHUNK_ELEMENTS // width)
    for first in range(0, len(directions), rows):
        yield first, directions[first : first + rows]
