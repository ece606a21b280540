"""Sample the bundled corpus, short stories, from the bundled model: one {"text": ...} per line, gzipped, 1 MB at most.

    python scripts/make_demo_corpus.py

The same model and seed give the same bytes on the same machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from saelab.errors import UserError

# How a story may begin; one opening a batch, in turn.
OPENINGS = (
    "Once upon a time, there was a", "One day, a", "Once upon a time, in a", "One day, Lily and", "Tom and his",
    "There was a little", "Once there was a", "Sara and Ben were", "One sunny day,", "Max was a", "Anna liked to",
    "Tim and Sue", "The little", "Mia was", "It was a", "Lucy loved", "Ben had a", "One night,", "In a big forest,",
    "Jack and his mom", "Amy wanted", "Bob was a", "Every day,", "Sam the", "A long time ago,",
)  # fmt: skip


@torch.no_grad()
def sample_stories(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    opening: str,
    count: int,
    temperature: float,
    top_p: float,
) -> list[str]:
    """Stories that start with `opening`, up to the model's end-of-text; one that has none within the context is cut
    after its last full sentence, and dropped when it has none."""
    prompt = torch.tensor([[tokenizer.bos_token_id, *tokenizer(opening).input_ids]] * count)
    out = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        temperature=temperature,
        top_p=top_p,
        top_k=0,
        max_length=model.config.n_positions,
        pad_token_id=tokenizer.eos_token_id,
    )
    return [story for row in out[:, 1:].tolist() if (story := whole_story(row, tokenizer))]


def whole_story(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> str:
    """The text up to end-of-text, or else up to the last sentence's end; empty if no sentence ends."""
    if tokenizer.eos_token_id in ids:
        return str(tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)])).strip()
    text = str(tokenizer.decode(ids))
    cut = max(text.rfind(mark) for mark in (".", "!", "?"))
    quote = text[cut + 1 : cut + 2] == '"'
    return text[: cut + 1 + quote].strip()


def compress(stories: list[str]) -> bytes:
    """The corpus file of these stories; no time stamp, so that equal stories are equal bytes."""
    lines = "".join(json.dumps({"text": story}, ensure_ascii=False) + "\n" for story in stories)
    return gzip.compress(lines.encode("utf-8"), compresslevel=9, mtime=0)


def fitting(stories: list[str], limit: int) -> list[str]:
    """As many stories from the first on as compress to at most `limit` bytes."""
    low, high = 0, len(stories)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(compress(stories[:middle])) <= limit else (low, middle - 1)
    return stories[:low]


def main() -> None:
    """Sample until the file is full, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("artifacts/demo-model"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/demo-corpus.jsonl.gz"))
    parser.add_argument("--bytes", type=int, default=1_000_000, help="size of the compressed file at most")
    parser.add_argument("--tokens", type=int, default=1_500_000, help="stop here even if there is room for more")
    parser.add_argument("--batch", type=int, default=256, help="stories sampled at a time")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.model / "model.safetensors").exists():
        raise UserError(f"--model: there is no model.safetensors in {options.model}")
    model = GPT2LMHeadModel.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    stories: dict[str, None] = {}
    tokens, began, batch = 0, time.monotonic(), 0
    while tokens < options.tokens and len(compress(list(stories))) <= options.bytes:
        torch.manual_seed(options.seed * 1_000_003 + batch)
        opening = OPENINGS[batch % len(OPENINGS)]
        new = sample_stories(model, tokenizer, opening, options.batch, options.temperature, options.top_p)
        stories.update(dict.fromkeys(new))
        tokens += sum(len(ids) for ids in tokenizer(new).input_ids)
        batch += 1
        print(f"{tokens:,} tokens, {len(stories):,} stories, {time.monotonic() - began:.0f} s", flush=True)
    kept = fitting(list(stories), options.bytes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_name(options.out.name + ".partial")
    partial.write_bytes(compress(kept))
    os.replace(partial, options.out)
    total = sum(len(ids) for ids in tokenizer(kept).input_ids)
    print(f"{options.out}: {len(kept):,} stories, {total:,} tokens, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
