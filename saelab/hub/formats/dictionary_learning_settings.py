"""dictionary_learning's config.json: what it says of a dictionary's place and making."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from saelab.hub.formats.parts import Origin
from saelab.hub.formats.places import hub_model, known, of_module
from saelab.hub.formats.untrusted import MOST_LATENTS, Settings
from saelab.models.site import HEAD_KINDS, UNKNOWN, Site, SiteKind

_MOST_LAYERS = 10_000
_SUBMODULE = re.compile(r"([a-z]+(?:_[a-z]+)*?)(?:_layer_(\d{1,4}))?")
_KINDS: dict[str, SiteKind] = {
    "resid_pre": "resid_pre", "resid_mid": "resid_mid", "resid_post": "resid_post", "mlp": "mlp_out",
    "mlp_out": "mlp_out", "attn": "attn_out", "attn_out": "attn_out", "attention": "attn_out",
    "attention_out": "attn_out",
}  # fmt: skip


def origin(settings: Settings, k: int | None) -> Origin:
    """Where the dictionary belongs, as `trainer` and `buffer` have it.

    Raises:
        UserError: a value is not of its kind.
    """
    trainer, buffer = settings.section("trainer"), settings.section("buffer")
    tokens = 0
    if "steps" in trainer and "out_batch_size" in buffer:
        tokens = trainer.integer("steps", 2**40, 0) * buffer.integer("out_batch_size", 2**30)
    return Origin(
        "dictionary-learning", _site(trainer, buffer), model=hub_model(trainer.text("lm_name")),
        policy=_policy(buffer), tokens_trained=tokens, k=k,
    )  # fmt: skip


def check_k(k: int, trainer: Settings, d_sae: int) -> None:
    """Refuse a k of the weights that the settings contradict, or that can't be."""
    if "k" in trainer and trainer.integer("k", MOST_LATENTS) != k:
        trainer.refuse("k", f"is {trainer.values['k']}, and the weights say {k}")
    if not 1 <= k <= d_sae:
        trainer.refuse("k", f"of the weights is {k}, which can't be with {d_sae} latents")


def named_site(site: str) -> tuple[int | None, str | None]:
    """`layer` and `submodule_name` of a site, as `resid_post_layer_3`; heads keep saelab's own spelling."""
    if not known(site):
        return None, None if site == UNKNOWN else site
    place = Site.parse(site)
    return place.layer, str(place) if place.kind in HEAD_KINDS else f"{place.kind}_layer_{place.layer}"


def _site(trainer: Settings, buffer: Settings) -> str:
    """The output of the named submodule; its own name where that is no site, or where inputs were read."""
    name, io = trainer.text("submodule_name"), buffer.text("io") or "out"
    if not name:
        return UNKNOWN
    if io != "out":
        return f"{io} of {name}"
    if known(name):
        return str(Site.parse(name))
    layer = trainer.integer("layer", _MOST_LAYERS, 0) if "layer" in trainer else None
    match = _SUBMODULE.fullmatch(name)
    if match is None or match[1] not in _KINDS:
        return of_module(name) or name
    number = layer if match[2] is None else int(match[2])
    if number is None or (layer is not None and number != layer):
        return name
    return str(Site(number, _KINDS[match[1]]))


def _policy(buffer: Settings) -> Mapping[str, Any]:
    """A row is the beginning of one document, and all its tokens count; whether BOS opens it is the tokenizer's."""
    if "ctx_len" not in buffer:
        return {}
    return {
        "context": buffer.integer("ctx_len", 2**22, 2), "cross_documents": False, "pad": True,
        "exclude_special": False, "exclude_first": 1 if buffer.flag("remove_bos", False) else 0,
    }  # fmt: skip
