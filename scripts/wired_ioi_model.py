"""A GPT-2 whose weights are written by hand, so that its circuit for indirect object identification is known.

    python scripts/wired_ioi_model.py wired
    saelab ioi wired --train topk

Three layers of three heads, of which one a layer does anything. Head 0.2 finds at every token an earlier one of the
same word and writes where it stands (duplicate token); head 1.0 brings that place from S2 to END (S-inhibition); head
2.1 reads the name that stands anywhere else (name mover). What is passed on is a position, so Pos passes through z of
0.2, v and z of 1.0 and q of 2.1, IO through z of 2.1, and S through nothing. `saelab ioi` has to find just that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from saelab.disk import bundled
from saelab.errors import UserError
from saelab.evaluation.ioi.vocabulary import Vocabulary

POSITIONS, TOKEN = 32, 64  # places that can be told apart; numbers that stand for a token
HEADS, D_HEAD = 3, 152
HALF = HEADS * D_HEAD // 2  # the stream is (f, −f), so that LayerNorm finds no mean to take away
CONSTANT = 10.0  # far above all else in f, so that LayerNorm divides by nearly the same everywhere
SHARP = 10.0  # difference of scores between what a head looks for and the rest
LOGIT = 6.0

_SIZES = {"token": TOKEN, "place": POSITIONS, "earlier": POSITIONS, "taken": POSITIONS, "answer": TOKEN}
_FLAGS = ("name", "bos", "constant")
_SCALE = (HALF / (CONSTANT**2 + 3)) ** 0.5  # what LayerNorm multiplies f by


def _parts() -> dict[str, slice]:
    """Where each part of f lies."""
    parts, start = {}, 0
    for name, size in (*_SIZES.items(), *((flag, 1) for flag in _FLAGS)):
        parts[name] = slice(start, start + size)
        start += size
    return parts


PARTS = _parts()


class _Head:
    """One head's queries, keys, values and outputs, written slot by slot."""

    def __init__(self, model: GPT2LMHeadModel, layer: int, head: int) -> None:
        self.attention: Any = model.transformer.h[layer].attn
        self.first = head * D_HEAD

    def score(self, query: dict[str, float], key: dict[str, float], slots: slice, strength: float) -> None:
        """Add `strength · (Σ query part) · (Σ key part)` to the scores, over `slots` as wide as the parts."""
        gain = strength * D_HEAD**0.5 / _SCALE**2
        for kind, parts, factor in ((0, query, gain), (1, key, 1.0)):
            for name, weight in parts.items():
                self._read(kind, PARTS[name], slots, weight * factor)

    def sums(self, key: dict[str, float], slot: int, strength: float, skip_first: Iterable[str] = ()) -> None:
        """Add `strength · Σ key` to the scores from everywhere; of `skip_first` place 0 does not count."""
        gain = strength * D_HEAD**0.5 / _SCALE**2 / CONSTANT
        self._read(0, PARTS["constant"], slice(slot, slot + 1), gain)
        for name, weight in key.items():
            start = PARTS[name].start + (name in skip_first)
            column = HALF * 2 + self.first + slot
            self.attention.c_attn.weight.data[start : PARTS[name].stop, column] += weight

    def carry(self, source: str, target: str) -> None:
        """What is attended to: its part `source` is written into `target` here."""
        size = PARTS[source].stop - PARTS[source].start
        self._read(2, PARTS[source], slice(0, size), 1.0)
        rows = torch.arange(self.first, self.first + size)
        out = torch.arange(PARTS[target].start, PARTS[target].stop)
        self.attention.c_proj.weight.data[rows, out] = 1 / _SCALE
        self.attention.c_proj.weight.data[rows, HALF + out] = -1 / _SCALE

    def _read(self, kind: int, part: slice, slots: slice, weight: float) -> None:
        columns = torch.arange(slots.start, slots.stop) + kind * HALF * 2 + self.first
        self.attention.c_attn.weight.data[torch.arange(part.start, part.stop), columns] += weight


def wired_model(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """The model, for a tokenizer that has a beginning-of-text token."""
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=2 * HALF, n_layer=3, n_head=HEADS, n_inner=1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False,
        bos_token_id=_bos(tokenizer), eos_token_id=_bos(tokenizer),
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        if ".ln_" not in name:
            parameter.data.zero_()
    tokens = torch.nn.functional.normalize(
        torch.randn(len(tokenizer), TOKEN, generator=torch.Generator().manual_seed(0)), dim=1
    )
    model.transformer.wte.weight.data.copy_(_embedding(tokenizer, tokens))
    model.transformer.wpe.weight.data.copy_(_both(torch.eye(POSITIONS), "place"))
    model.lm_head.weight.data[:, PARTS["answer"]] = LOGIT * tokens

    duplicate = _Head(model, 0, 2)
    duplicate.score({"token": 1.0}, {"token": 1.0}, slice(0, TOKEN), 4 * SHARP)
    duplicate.score({"place": -1.0}, {"place": 1.0}, slice(TOKEN, TOKEN + POSITIONS), 8 * SHARP)  # not itself
    duplicate.sums({"bos": 1.0}, TOKEN + POSITIONS, 2.4 * SHARP)  # where there is none: to the beginning, place 0
    duplicate.carry("place", "earlier")

    inhibition = _Head(model, 1, 0)
    inhibition.sums({"earlier": 1.0, "name": 2.0}, 0, SHARP, skip_first=("earlier",))
    inhibition.carry("earlier", "taken")

    mover = _Head(model, 2, 1)
    mover.sums({"name": 1.0, "earlier": -1.0}, POSITIONS, SHARP, skip_first=("earlier",))
    mover.score({"taken": -1.0}, {"place": 1.0}, slice(0, POSITIONS), SHARP)
    mover.carry("token", "answer")
    return model


def _embedding(tokenizer: PreTrainedTokenizerFast, tokens: Float[Tensor, "vocabulary token"]) -> Tensor:
    embedding = _both(tokens, "token")
    names = torch.tensor(list(Vocabulary.of(tokenizer, "train", "all").names.values()))
    for rows, flag, value in ((names, "name", 1.0), (torch.tensor([_bos(tokenizer)]), "bos", 1.0)):
        embedding[rows] += _both(torch.full((len(rows), 1), value), flag)
    return embedding + _both(torch.full((len(tokens), 1), CONSTANT), "constant")


def _bos(tokenizer: PreTrainedTokenizerFast) -> int:
    if not isinstance(tokenizer.bos_token_id, int):
        raise UserError("the wired model needs a tokenizer with a beginning-of-text token")
    return tokenizer.bos_token_id


def _both(part: Float[Tensor, "rows size"], name: str) -> Float[Tensor, "rows d_model"]:
    """f with one part, and −f behind it."""
    f = torch.zeros(len(part), HALF)
    f[:, PARTS[name]] = part
    return torch.cat([f, -f], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make, in Hugging Face's format")
    out: Path = parser.parse_args().out
    tokenizer = AutoTokenizer.from_pretrained(bundled("artifacts/demo-model"))
    wired_model(tokenizer).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
