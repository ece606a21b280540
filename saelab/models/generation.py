"""Choosing the next token."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from saelab.errors import UserError


def check_sampling(max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse settings with no meaning.

    Raises:
        UserError: naming the setting and its range.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    if not temperature >= 0:
        raise UserError(f"temperature is {temperature}; it must be 0 (always the likeliest token) or more")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}; it must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; it must be above 0 and at most 1")


def sample(
    logits: Float[Tensor, "batch d_vocab"],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: Generator,
) -> Int[Tensor, " batch"]:
    """One token for each row: the likeliest at temperature 0, else drawn with the CPU `generator`.

    top_k keeps the k likeliest tokens; top_p (nucleus sampling, arXiv 1904.09751) the fewest likeliest ones whose
    probabilities, after temperature and top_k, reach p.
    """
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float().cpu() / temperature
    if top_k is not None:
        kth = scaled.topk(min(top_k, scaled.shape[-1])).values[..., -1:]
        scaled = scaled.masked_fill(scaled < kth, float("-inf"))
    probabilities = scaled.softmax(-1)
    if top_p is not None:
        ranked, order = probabilities.sort(-1, descending=True)
        before = ranked.cumsum(-1) - ranked  # probability of all likelier tokens
        ranked = ranked.masked_fill(before >= top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1).to(logits.device)
