"""What the demo model is measured by: nats per token on held-out text, and indirect object identification."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int64
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

from demo_model.tokenizer import END
from saelab.corpora.microworld.ioi import TEMPLATES, IOIPrompt, sample_prompts
from saelab.corpora.microworld.words import Split


@torch.no_grad()
def loss(model: nn.Module, rows: Int64[np.ndarray, "rows width"], batch: int = 16) -> float:
    """Mean cross-entropy in nats per predicted token; a row's first id is given, not predicted."""
    device = next(model.parameters()).device
    total = 0.0
    for part in torch.from_numpy(rows).split(batch):
        part = part.to(device)
        logits = model(part[:, :-1]).logits.float()
        total += F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    return total / (rows.shape[0] * (rows.shape[1] - 1))


def losses(model: nn.Module, validation: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`loss` on every validation source."""
    return {source: round(loss(model, rows), 4) for source, rows in validation.items()}


@torch.no_grad()
def end_logits(model: nn.Module, tokenizer: Tokenizer, texts: list[str], batch: int = 64) -> torch.Tensor:
    """Logits [prompts, vocabulary] after each text's last token; a text is preceded by end-of-text."""
    device = next(model.parameters()).device
    end = tokenizer.token_to_id(END)
    out = []
    for start in range(0, len(texts), batch):
        ids = [[end, *tokenizer.encode(text).ids] for text in texts[start : start + batch]]
        longest = max(map(len, ids))
        padded = torch.tensor([row + [end] * (longest - len(row)) for row in ids], device=device)
        last = torch.tensor([len(row) - 1 for row in ids], device=device)
        logits = model(padded).logits
        out.append(logits[torch.arange(len(ids), device=device), last].float().cpu())
    return torch.cat(out)


def ioi_scores(model: nn.Module, tokenizer: Tokenizer, prompts: list[IOIPrompt]) -> dict[str, float | int]:
    """Accuracy (logit of IO above logit of S), mean logit difference, and share of prompts whose argmax is IO."""
    logits = end_logits(model, tokenizer, [prompt.text for prompt in prompts])
    io = torch.tensor([tokenizer.token_to_id("Ġ" + prompt.io) for prompt in prompts])
    s = torch.tensor([tokenizer.token_to_id("Ġ" + prompt.s) for prompt in prompts])
    row = torch.arange(len(prompts))
    difference = logits[row, io] - logits[row, s]
    return {
        "prompts": len(prompts),
        "accuracy": round((difference > 0).float().mean().item(), 4),
        "logit_difference": round(difference.mean().item(), 3),
        "argmax_is_io": round((logits.argmax(1) == io).float().mean().item(), 4),
    }


def ioi_by_template(
    model: nn.Module, tokenizer: Tokenizer, split: Split, prompts: int, seed: int = 1
) -> dict[str, dict[str, float | int]]:
    """`ioi_scores` for each template, with names, places and objects of the split's halves."""
    return {
        str(template): ioi_scores(model, tokenizer, sample_prompts(prompts, seed, split, (template,)))
        for template in TEMPLATES
    }
