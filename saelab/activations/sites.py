"""Site patterns: "blocks.*.resid_post" stands for every layer, "blocks.7.attn.z.head*" for every head."""

from __future__ import annotations

import re
from collections.abc import Sequence

from saelab.models import LanguageModel, Site

_PATTERN = re.compile(r"blocks\.(?P<layer>\*|\d+)\.(?P<kind>.+?)(?:\.head(?P<head>\*|\d+))?")


def expand_sites(patterns: Sequence[str], model: LanguageModel) -> list[Site]:
    """The model's sites that the patterns name, each once, in forward order; a UserError for one that isn't there."""
    sites = {site for pattern in patterns for site in _expand(pattern.strip(), model)}
    for site in sites:
        model.check(site)
    return sorted(sites)


def last_layer(patterns: Sequence[str]) -> int | None:
    """The highest layer that the patterns name; None if one of them stands for every layer, or names no site."""
    found = [_PATTERN.fullmatch(pattern.strip()) for pattern in patterns]
    layers = [match["layer"] for match in found if match is not None]
    return None if "*" in layers or len(layers) < len(found) else max(map(int, layers))


def _expand(pattern: str, model: LanguageModel) -> list[Site]:
    match = _PATTERN.fullmatch(pattern)
    if match is None or "*" not in pattern:
        return [Site.parse(pattern)]
    layers = [str(layer) for layer in range(model.n_layers)] if match["layer"] == "*" else [match["layer"]]
    whole = [Site.parse(f"blocks.{layer}.{match['kind']}") for layer in layers]
    if match["head"] is None:
        return whole
    n_heads = model.n_kv_heads if whole[0].kind in ("k", "v") else model.n_heads
    heads = range(n_heads) if match["head"] == "*" else [int(match["head"])]
    return [Site(site.layer, site.kind, head) for site in whole for head in heads]
