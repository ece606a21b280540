"""A run with a mind: a dictionary on a real, tiny language model, which pages that compute can load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from saelab.config import to_yaml
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, write_text
from saelab.features import IndexConfig, build_index
from saelab.models import LanguageModel, Site
from saelab.training import TrainConfig

D_SAE, K, CONTEXT = 48, 6, 32


def readable(model: Path, to: Path) -> Path:
    """A copy of the model folder whose tokenizer also turns bytes back into text."""
    shutil.copytree(model, to)
    tokenizer = json.loads((to / "tokenizer.json").read_text())
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (to / "tokenizer.json").write_text(json.dumps(tokenizer | {"decoder": decoder}))
    return to


def write_thinking_run(root: Path, model: Path, site: str = "blocks.0.resid_post", indexed: bool = True) -> RunPaths:
    """A random dictionary on `model`, its settings, and an index of some made-up text."""
    paths, opened = RunPaths(root), LanguageModel.load(model, device="cpu")
    policy = TokenPolicy(context=CONTEXT)
    generator = torch.Generator().manual_seed(3)
    width = opened.width(Site.parse(site))
    weights = torch.nn.functional.normalize(torch.randn(D_SAE, width, generator=generator), dim=1)
    config = DictionaryConfig(
        architecture="topk", d_in=width, d_sae=D_SAE, k=K, affinity=ActivationAffinity(), allocation=TokenChoice(),
        rule="topk", scale=1.0, site=site, model=str(model), model_fingerprint=opened.fingerprint,
        tokenizer_fingerprint=opened.tokenizer_fingerprint or "", policy=policy.model_dump(mode="json"),
        tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    zeros = torch.zeros(D_SAE), torch.zeros(width), torch.zeros(0)
    dictionary = Dictionary(weights, weights.clone(), *zeros, config)
    dictionary.save(paths.dictionary, torch.randn(4, width, generator=generator))
    text = root.parent / "text.jsonl"
    lines = [f"The {a} saw a {b}. Then the {b} ran to the {a}." for a in ("cat", "dog", "sun") for b in ("hill", "Tom")]
    write_text(text, "".join(json.dumps({"text": " ".join(lines[n:] + lines[:n])}) + "\n" for n in range(6)))
    corpus = CorpusConfig(source=str(text))
    settings = {"model": str(model), "site": site, "policy": policy, "corpus": corpus, "sae": {"d_sae": D_SAE, "k": K}}
    write_text(paths.config, to_yaml(TrainConfig.model_validate(settings)))
    if indexed:
        build_index(IndexConfig(run=root, tokens=600, corpus=corpus, device="cpu"))
    return paths
