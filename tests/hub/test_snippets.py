"""The torch snippet of a card is the dictionary's own function, for every rule that a dictionary can have."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch

from saelab.dictionaries.config import (
    Allocation,
    DictionaryConfig,
    Gated,
    Group,
    GroupChoice,
    MutualChoice,
    TokenChoice,
)
from saelab.dictionaries.dictionary import Dictionary
from saelab.hub.reference import Reference
from saelab.hub.snippets import with_torch

D, F, K = 6, 10, 3
GROUPS = GroupChoice(groups=(Group(name="a", values=("x", "y", "z")), Group(name="b", values=tuple("pqrstuv"))))


def dictionary(allocation: Allocation | GroupChoice, targets: tuple[int, ...] = ()) -> Dictionary:
    """Random weights under a rule; scales and biases that make each convention matter."""
    generator = torch.Generator().manual_seed(len(targets) + len(allocation.kind))
    d_out = sum(targets) or D
    rule = {"token": "topk", "group": "group"}.get(allocation.kind, "threshold")
    config = DictionaryConfig.model_validate({
        "architecture": "any", "d_in": D, "d_sae": F, "k": K, "affinity": {"kind": "activation"},
        "allocation": allocation.model_dump(), "rule": rule, "scale": 1.7, "site": "blocks.0.resid_post", "model": "m",
        "targets": [{"site": "blocks.1.mlp_out", "width": width, "scale": 0.3 + i} for i, width in enumerate(targets)],
        "model_fingerprint": "", "tokenizer_fingerprint": "", "policy": {}, "tokens_trained": 0, "saelab_version": "0",
    })  # fmt: skip
    sizes = {"W_enc": (F, D), "W_dec": (F, d_out), "b_enc": (F,), "b_dec": (d_out,)}
    weights = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    threshold = torch.rand(F, generator=generator) - 0.3 if rule == "threshold" else torch.empty(0)
    gate = (
        {name: torch.rand(F, generator=generator) for name in ("gain", "shift")} if allocation.kind == "gated" else {}
    )
    return Dictionary(**weights, threshold=threshold, config=config, **gate)


@pytest.mark.parametrize(
    "made",
    [
        dictionary(TokenChoice()), dictionary(MutualChoice()), dictionary(Gated()), dictionary(GROUPS),
        dictionary(TokenChoice(), (4, 5)), dictionary(MutualChoice(), (7,)),
    ],
    ids=["topk", "threshold", "gated", "group", "transcoder to two", "transcoder"],
)  # fmt: skip
def test_it_computes_what_the_dictionary_computes(
    made: Dictionary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(3, 5, D, generator=torch.Generator().manual_seed(1))
    made.save(tmp_path / "d", x.reshape(-1, D))
    weights = str(tmp_path / "d" / "dictionary.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: weights)
    names: dict = {}
    exec(with_torch(Reference("user/repo", "id"), made.config), names)
    codes = names["encode"](x)
    assert (codes != 0).any()
    torch.testing.assert_close(codes, made.encode(x).to_dense().reshape(3, 5, F))
    torch.testing.assert_close(names["decode"](codes), made(x))
