"""Files of other tools built by hand, and their encoders written out: what `read` is held against without the tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Forward = Callable[[Tensor], Tensor]
D, F, K = 5, 12, 3
METADATA = {
    "sae_lens_version": "6.1.0", "model_name": "gpt2-small", "hook_name": "blocks.4.hook_resid_pre",
    "context_size": 128, "prepend_bos": True, "hook_name_out": "blocks.4.hook_mlp_out",
}  # fmt: skip


def normal(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def keep_topk(z: Tensor, k: int = K) -> Tensor:
    best = z.topk(k, dim=-1)
    return torch.zeros_like(z).scatter(-1, best.indices, best.values.relu())


def saelens(
    folder: Path, architecture: str = "standard", seed: int = 0, dtype: torch.dtype = torch.float32, **more: Any
) -> Forward:
    """cfg.json with `more` in it and random weights; gives SAELens' function of them."""
    n = normal(seed)
    d_out = more.get("d_out", D)
    w = {"W_enc": n(D, F), "W_dec": n(F, d_out), "b_dec": n(d_out)}
    if architecture == "gated":
        w |= {"b_gate": n(F), "b_mag": n(F), "r_mag": n(F)}
    else:
        w["b_enc"] = n(F)
    if architecture.startswith("jumprelu"):
        w["threshold"] = n(F)
    w = {name: tensor.to(dtype) for name, tensor in w.items()}
    cfg = {
        "architecture": architecture, "d_in": D, "d_sae": F, "dtype": "float32", "device": "cuda:3",
        "apply_b_dec_to_input": not architecture.endswith("transcoder"), "normalize_activations": "none",
        "reshape_activations": "none", "metadata": METADATA,
    } | ({"k": K, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}) | more  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(w, folder / "sae_weights.safetensors")
    w = {name: tensor.float() for name, tensor in w.items()}

    def forward(x: Tensor) -> Tensor:
        centred = x - w["b_dec"] if cfg["apply_b_dec_to_input"] else x
        norms = w["W_dec"].norm(dim=1) if cfg.get("rescale_acts_by_decoder_norm") else torch.ones(F)
        match architecture:
            case "gated":
                gate = centred @ w["W_enc"] + w["b_gate"] > 0
                f = gate * (centred @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu()
            case "topk":
                f = keep_topk((centred @ w["W_enc"] + w["b_enc"]) * norms) / norms
            case _:
                z = centred @ w["W_enc"] + w["b_enc"]
                f = z.relu() * (z > w.get("threshold", torch.zeros(F)))
        return f @ w["W_dec"] + w["b_dec"]

    return forward


def sparsify(folder: Path, seed: int = 0, **more: Any) -> Forward:
    n = normal(seed)
    w = {"encoder.weight": n(F, D), "encoder.bias": n(F), "W_dec": n(F, D), "b_dec": n(D)}
    cfg = {
        "activation": "topk", "expansion_factor": 4, "normalize_decoder": True, "num_latents": F, "k": K,
        "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D,
    } | more  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(w, folder / "sae.safetensors")

    def forward(x: Tensor) -> Tensor:
        z = (x if cfg["transcode"] else x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
        return keep_topk(z.relu()) @ w["W_dec"] + w["b_dec"]

    return forward


LINEAR = {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F)}
FLAT = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
STATES: dict[str, dict[str, tuple[int, ...]]] = {
    "AutoEncoder": LINEAR | {"bias": (D,)}, "AutoEncoderNew": LINEAR | {"decoder.bias": (D,)},
    "GatedAutoEncoder": {
        "encoder.weight": (F, D), "decoder.weight": (D, F), "decoder_bias": (D,), "r_mag": (F,), "gate_bias": (F,),
        "mag_bias": (F,),
    },
    "JumpReluAutoEncoder": FLAT | {"threshold": (F,)}, "AutoEncoderTopK": LINEAR | {"b_dec": (D,)},
    "BatchTopKSAE": LINEAR | {"b_dec": (D,)}, "MatryoshkaBatchTopKSAE": FLAT,
}  # fmt: skip


def dictionary_learning(
    folder: Path, kind: str = "BatchTopKSAE", seed: int = 0, threshold: float = 0.7, **more: Any
) -> Forward:
    """ae.pt of a class, with `more` in its config's trainer; gives the class's function."""
    n = normal(seed)
    state = {name: n(*shape) for name, shape in STATES[kind].items()}
    w = dict(state)
    if "TopK" in kind:
        state |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold)}
    if kind.startswith("Matryoshka"):
        state["group_sizes"] = torch.tensor([4, F - 4])
    trainer = {
        "dict_class": kind, "activation_dim": D, "dict_size": F, "layer": 2, "lm_name": "gpt2", "k": K,
        "submodule_name": "resid_post_layer_2", "steps": 10,
    } | more  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"trainer": trainer, "buffer": {"ctx_len": 64, "out_batch_size": 8}})
    )
    torch.save(state, folder / "ae.pt")

    def forward(x: Tensor) -> Tensor:
        W_enc = w["W_enc"] if "W_enc" in w else w["encoder.weight"].T
        W_dec = w["W_dec"] if "W_dec" in w else w["decoder.weight"].T
        b = next(w[name] for name in ("bias", "decoder.bias", "decoder_bias", "b_dec") if name in w)
        u = (x if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - b) @ W_enc
        if kind == "GatedAutoEncoder":
            f = (u + w["gate_bias"] > 0) * (w["r_mag"].exp() * u + w["mag_bias"]).relu()
        else:
            z = u + w.get("encoder.bias", w.get("b_enc", torch.zeros(F)))
            edge = {
                "JumpReluAutoEncoder": w.get("threshold"),
                "BatchTopKSAE": threshold,
                "MatryoshkaBatchTopKSAE": threshold,
            }
            f = keep_topk(z) if kind == "AutoEncoderTopK" else z.relu() * (z > edge.get(kind, 0.0))
        return f @ W_dec + b

    return forward
