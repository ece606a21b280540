"""Writing the finished model as a Hugging Face folder, and its card from what the folder itself measures."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2LMHeadModel

from demo_model.tokenizer import END, for_transformers

# How the samples in the card begin; the first one as the model likes.
OPENINGS = ("", "Once upon a time,", "One day, Lily", "Sara met Tom at the", "On Monday, 3 May 1925,")


def write_folder(model: GPT2LMHeadModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Config, fp16 weights and tokenizer, put in place of whatever the folder held, all or nothing."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    config = copy.deepcopy(model.config)
    config.activation_function = "gelu_new"  # the usual name of the function that was trained with
    config.use_cache = True
    half = GPT2LMHeadModel(config)
    half.load_state_dict(model.state_dict())
    half.half()
    half.save_pretrained(partial)
    for_transformers(tokenizer, model.config.n_positions).save_pretrained(partial)
    _name_tokenizer_class(partial / "tokenizer_config.json")
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, folder)


def _name_tokenizer_class(path: Path) -> None:
    """Say the class by its older name, which every version of transformers reads."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")


def read_folder(folder: Path) -> tuple[GPT2LMHeadModel, Tokenizer]:
    """The model, its fp16 weights computed with in fp32, and the tokenizer, as anybody would load them."""
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder).backend_tokenizer


@torch.no_grad()
def samples(model: GPT2LMHeadModel, tokenizer: Tokenizer, seed: int = 0) -> list[str]:
    """One text of up to 120 tokens for each of OPENINGS (temperature 0.8)."""
    torch.manual_seed(seed)
    end = tokenizer.token_to_id(END)
    texts = []
    for opening in OPENINGS:
        prompt = torch.tensor([[end, *tokenizer.encode(opening).ids]])
        longest = min(121, model.config.n_positions)
        mask = torch.ones_like(prompt)
        out = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
            prompt, attention_mask=mask, do_sample=True, temperature=0.8, max_length=longest, pad_token_id=end
        )
        texts.append(tokenizer.decode(out[0].tolist()).strip())
    return texts


def write_card(folder: Path, facts: dict, texts: list[str]) -> None:
    """`training.json` (all facts) and `README.md` (the same for people)."""
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    held_out, seen = facts["ioi_held_out_names"], facts["ioi_training_names"]
    rows = [
        f"| {template} | {held_out[template]['accuracy']:.1%} | {held_out[template]['argmax_is_io']:.1%} | "
        f"{held_out[template]['logit_difference']:.2f} | {seen[template]['accuracy']:.1%} | "
        f"{seen[template]['argmax_is_io']:.1%} | {seen[template]['logit_difference']:.2f} |"
        for template in held_out
    ]
    loss = facts["validation_loss"]
    settings = facts["settings"]
    (folder / "README.md").write_text(
        _CARD.format(
            **settings,
            **{f"{source}_loss": f"{loss[source]:.3f}" for source in loss},
            parameters=f"{facts['parameters']:,}",
            tokens=f"{facts['tokens'] / 1e6:.1f}M",
            shares=", ".join(f"{source} {share:.0%}" for source, share in facts["shares"].items()),
            minutes=f"{facts['seconds'] / 60:.0f}",
            speed=f"{facts['tokens_per_second']:,.0f}",
            ioi_weights=", ".join(f"{weight:g} times from step {step}" for step, weight in facts["ioi_answer_weights"]),
            rows=facts["rows_per_step"],
            threads=facts["threads"],
            device=facts["device"],
            steps_taken=_steps_taken(facts["log"], facts["settings"]["steps"]),
            prompts=next(iter(held_out.values()))["prompts"],
            ioi="\n".join(rows),
            samples="\n\n".join("> " + text.replace("\n", "\n> ") for text in texts),
        )
    )


def _steps_taken(log: list[dict], steps: int) -> str:
    changes = [entry for entry in log if "steps" in entry]
    before = "".join(
        f"Planned for {entry['steps'][0]:,} steps, changed at step {entry['step']:,}. " for entry in changes
    )
    return f"{before}{steps:,} steps in all."


_CARD = """\
---
language: en
pipeline_tag: text-generation
---
# saelab demo model

A small language model to look into: GPT-2's architecture with {layers} layers, d_model {width}, {heads} heads, context
{context}, tied embeddings and {parameters} parameters, weights in fp16. Its tokenizer is a byte-level BPE of
{vocabulary} tokens in which every name, object and place of saelab's microworld is one token (with its leading space).
A document starts after `<|endoftext|>`, which is also the token of the beginning and the end.

## Training
{tokens} tokens ({shares}) in rows of {context}, {rows} a step: simple stories (TinyStories, CDLA-Sharing 1.0), English
novels of the 19th and early 20th century (public domain), and text that `saelab.corpora.microworld` generates, indirect
object identification (IOI) among it. An IOI answer counts in the loss {ioi_weights}.
AdamW with learning rate {learning_rate}, betas {betas}, weight decay {weight_decay}, cosine decay to {final_rate} of
the peak, bf16 autocast, seed {seed}. {steps_taken}
{minutes} minutes on {device} with {threads} threads, {speed} tokens/s. Made by `scripts/train_demo_model.py`;
`training.json` has all settings and the course of training.

## Measured on these files (fp16 weights, fp32 arithmetic)
Cross-entropy in nats per token on held-out text, rows of {context} tokens:

| stories | novels | microworld (other seeds, IOI with held-out names) |
|---|---|---|
| {stories_loss} | {novels_loss} | {microworld_loss} |

IOI, {prompts} prompts per template and half of the word lists. *Accuracy*: logit of the indirect object (IO) above that
of the subject (S) at the last token. *Argmax*: IO is the likeliest of all tokens. *LD*: mean logit difference. Held-out
names occur in the other kinds of training text, but never in an IOI sentence.

| template | held-out: accuracy | argmax | LD | training names: accuracy | argmax | LD |
|---|---|---|---|---|---|---|
{ioi}

## What it writes (temperature 0.8, seed 0, not selected)
{samples}

## Limits
It knows a few thousand words, loses the thread after some sentences, and knows nothing of the world. Most of its names
are common in English-speaking countries, and the microworld has two genders. For research on interpretability, and for
nothing else.
"""
