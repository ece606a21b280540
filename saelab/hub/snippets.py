"""Code that loads a published dictionary: with saelab, with SAELens, and with torch alone."""

from __future__ import annotations

from saelab.dictionaries.config import DictionaryConfig, GroupChoice
from saelab.hub.reference import Reference


def with_saelab(reference: Reference) -> str:
    """Codes and reconstructions through saelab."""
    return f"""import saelab

sae = saelab.load("{reference}")
codes = sae.encode(x)      # x [..., d_in], activations in the model's own units → sparse codes
x_hat = sae.decode(codes)"""


def with_saelens(repo: str, folder: str) -> str:
    """The copy in SAELens' format; its `encode` and `decode` give the same numbers."""
    return f"""from sae_lens import SAE

sae = SAE.from_pretrained("{repo}", "{folder}")"""


def with_torch(reference: Reference, config: DictionaryConfig) -> str:
    """The dictionary's own function in a few lines of torch."""
    revision = f', revision="{reference.revision}"' if reference.revision else ""
    centred = "x * scale" if config.targets else '(x * scale - w["b_dec"])'
    return f'''import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

w = load_file(hf_hub_download("{reference.repo}", "{reference.id}/dictionary.safetensors"{revision}))
scale = {config.scale!r}  # E|scale · x|² = d_in


def encode(x):  # x [..., {config.d_in}] at {config.site} of {config.model} → codes [..., {config.d_sae}]
    z = {centred} @ w["W_enc"].T + w["b_enc"]
{_selection(config)}


def decode(codes):  # → x_hat [..., {config.d_out}]
    return {_output(config)}'''


def _selection(config: DictionaryConfig) -> str:
    """From pre-activations to codes, by the rule that the dictionary was saved with."""
    if config.rule == "topk":
        return f"""    best = z.topk({config.k}, dim=-1)
    return torch.zeros_like(z).scatter(-1, best.indices, best.values.relu())"""
    if isinstance(config.allocation, GroupChoice):
        return f"""    groups = z.split({list(config.allocation.sizes)}, dim=-1)
    best = [torch.nn.functional.one_hot(group.argmax(-1), group.shape[-1]) for group in groups]
    return torch.cat(best, dim=-1).to(z)"""
    kept = '(z > w["threshold"].clamp(min=0))'
    if config.allocation.kind == "gated":
        return f"""    return (w["gain"] * z + w["shift"]).relu() * {kept}"""
    return f"    return z * {kept}"


def _output(config: DictionaryConfig) -> str:
    inner = '(codes @ w["W_dec"] + w["b_dec"])'
    if not config.targets:
        return f"{inner} / scale"
    scales = " + ".join(f"[{target.scale!r}] * {target.width}" for target in config.targets)
    return f"{inner} / torch.tensor({scales})"
