"""SAELens' activation store, run by `benchmarks/harvest.py` in the environment where SAELens is.

    .venv-peers/bin/python benchmarks/saelens_store.py SETTINGS

SETTINGS is a JSON file: shape of the model, site, tokenizer, text, context, batch. It prints "ready", and then for
every line read, a number of tokens, the seconds that the store took to deliver them. Weights are random: a forward
pass costs the same. Nothing is written to disk.
"""

# pyright: reportMissingImports=false, reportCallIssue=false, reportArgumentType=false
from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sae_lens.training.activations_store import ActivationsStore
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoTokenizer


def store_of(settings: dict[str, Any]) -> ActivationsStore:
    shape = settings["shape"]
    config = HookedTransformerConfig(
        n_layers=shape["n_layer"], d_model=shape["n_embd"], n_ctx=shape["n_positions"], n_heads=shape["n_head"],
        d_head=shape["n_embd"] // shape["n_head"], d_vocab=shape["vocab_size"], act_fn="gelu_new",
        normalization_type="LN", device="cpu", seed=0,
    )  # fmt: skip
    model = HookedTransformer(config, AutoTokenizer.from_pretrained(settings["tokenizer"]))
    name = settings["site"].replace("resid_post", "hook_resid_post")
    return ActivationsStore.from_config_multi_hook(
        model,
        dataset=Dataset.from_dict({"text": json.loads(Path(settings["text"]).read_text())}),
        hook_names=[name],
        hook_d_ins={name: shape["n_embd"]},
        streaming=False,
        context_size=settings["context"],
        store_batch_size_prompts=settings["batch"],
        prepend_bos=False,
        total_training_tokens=1,
    )


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.set_grad_enabled(False)
    store = store_of(settings)
    store.get_raw_llm_batch()
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(-(-int(line) // (settings["context"] * settings["batch"]))):
            store.get_raw_llm_batch()
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
