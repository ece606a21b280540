"""Where in which model, as other tools spell it: transformer-lens hooks and Hugging Face modules ↔ Site."""

from __future__ import annotations

import re

from saelab.errors import UserError
from saelab.models.site import UNKNOWN, Site, SiteKind

_MODULE = re.compile(r"(?:transformer\.|gpt_neox\.|model\.)?(?:h|layers)\.(\d+)(?:\.(mlp|attn|self_attn|attention))?")
_KIND: dict[str | None, SiteKind] = {
    None: "resid_post", "mlp": "mlp_out", "attn": "attn_out", "self_attn": "attn_out", "attention": "attn_out"
}  # fmt: skip
_LLAMA_LIKE = ("llama", "gemma", "qwen", "mistral", "smollm")
_FAMILIES = {"gpt2-small": "gpt2", "pythia-": "EleutherAI/pythia-", "gemma-": "google/gemma-"}


def of_hook(name: str, head: int | None = None) -> str:
    """The site of a transformer-lens hook; the hook's own name where saelab has no such site."""
    try:
        site = Site.parse(name)
        return str(Site(site.layer, site.kind, head))
    except UserError:
        return (name if head is None else f"{name}.head{head}") or UNKNOWN


def of_module(name: str) -> str | None:
    """The site that a module's output is, by the names of GPT-2, Pythia and Llama; None for other modules.

    Models with a norm behind their MLP or attention (Gemma 2 and later) have it outside these modules, so there the
    output of "layers.3.mlp" is not mlp_out.
    """
    match = _MODULE.fullmatch(name)
    return None if match is None else str(Site(int(match[1]), _KIND[match[2]]))


def module_of(site: str, model: str) -> str | None:
    """The module of a Hugging Face base model whose output a site is; None where none is, or the names are others."""
    try:
        place = Site.parse(site)
    except UserError:
        return None
    name = model.lower()
    gpt2, pythia = "gpt2" in name, "pythia" in name
    if not (gpt2 or pythia or any(family in name for family in _LLAMA_LIKE)):
        return None
    attention = "attn" if gpt2 else "attention" if pythia else "self_attn"
    parts = {"resid_post": "", "mlp_out": ".mlp", "attn_out": f".{attention}"}
    return f"{'h' if gpt2 else 'layers'}.{place.layer}{parts[place.kind]}" if place.kind in parts else None


def unsaid(reads: str, writes: str, model: str) -> list[str]:
    """What is missing to find a dictionary's place, one sentence each; `writes` is empty but for transcoders."""
    said = []
    for what, site in (("reads", reads), ("writes", writes)):
        if site == UNKNOWN:
            said.append(f"the files do not say which site it {what}")
        elif site and not known(site):
            said.append(f"it {what} {site}, no site of saelab: encode and decode work, evaluation does not")
    return said + (["the files do not name the model"] if model == UNKNOWN else [])


def known(site: str) -> bool:
    """Whether saelab can find this site in a model."""
    try:
        Site.parse(site)
    except UserError:
        return False
    return True


def hub_model(name: str) -> str:
    """The Hugging Face name of a model that transformer-lens calls by a short one."""
    for short, full in _FAMILIES.items():
        if name == short or (short.endswith("-") and name.startswith(short)):
            return full + name.removeprefix(short)
    return name or UNKNOWN
