"""SAELens' cfg.json: what of it is supported, since version 6 and before, and what it says of a dictionary's making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelab.hub.formats.parts import Origin
from saelab.hub.formats.places import hub_model, of_hook
from saelab.hub.formats.untrusted import MOST_LATENTS, Settings
from saelab.models.site import UNKNOWN

VERSION = "6.0.0"
"""The first version whose cfg.json is as written here; SAELens rewrites whatever claims to be older."""

_SHARED = {
    "architecture", "d_in", "d_sae", "d_out", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
    "reshape_activations", "metadata", "k", "rescale_acts_by_decoder_norm",
}  # fmt: skip
# Of training alone; checkpoints have them.
_TRAINING = {
    "decoder_init_norm", "l1_coefficient", "lp_norm", "l1_warm_up_steps", "use_sparse_activations",
    "aux_loss_coefficient", "jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode",
    "l0_coefficient", "l0_warm_up_steps", "pre_act_loss_coefficient", "jumprelu_tanh_scale", "jumprelu_ste_to_input",
    "target_l0",
}  # fmt: skip
_RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "activation_fn_str": "activation_fn"}
_MADE = (
    "model_name", "hook_name", "hook_head_index", "context_size", "prepend_bos", "seqpos_slice",
    "exclude_special_tokens", "model_from_pretrained_kwargs", "training_tokens",
)  # fmt: skip
_PROCESSED = ("fold_ln", "center_writing_weights", "fold_value_biases", "refactor_factored_attn_matrices")


def current(settings: Settings) -> Settings:
    """Settings as versions since 6 write them.

    Raises:
        UserError: an older file switches on what no version since 6 has, or a newer one has keys that nobody knows.
    """
    version = settings.text("sae_lens_version") or settings.section("metadata").text("sae_lens_version")
    if version.split(".")[0].isdecimal() and int(version.split(".")[0]) >= 6:
        settings.only(_SHARED | _TRAINING, "saelab knows in SAELens' cfg.json, so what it changes can't be told")
        return settings
    return _before_6(settings)


def _before_6(settings: Settings) -> Settings:
    old = Settings({_RENAMED.get(key, key): value for key, value in settings.values.items()}, settings.where)
    if old.flag("finetuning_scaling_factor", False):
        old.refuse("finetuning_scaling_factor", "is on: rescaled activations are not supported")
    new: dict[str, Any] = {key: value for key, value in old.values.items() if key in _SHARED}
    new["architecture"] = old.text("architecture") or "standard"
    activation = old.text("activation_fn") or "relu"
    if activation == "topk":
        new["architecture"] = "topk"
        new["k"] = old.section("activation_fn_kwargs").integer("k", MOST_LATENTS)
    elif activation != "relu":
        old.refuse("activation_fn", f"is {activation!r}; relu and topk are supported")
    normalised = old.values.get("normalize_activations")
    if normalised is None or isinstance(normalised, bool):
        new["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    new["metadata"] = {"prepend_bos": True} | {key: old.values[key] for key in _MADE if key in old}
    return Settings(new, settings.where)


def origin(settings: Settings, transcodes: bool, tokens_trained: int) -> Origin:
    """Where the dictionary belongs, as `metadata` has it.

    Raises:
        UserError: a value is not of its kind.
    """
    made = settings.section("metadata")
    head = made.integer("hook_head_index", 2**16, 0) if "hook_head_index" in made else None
    k = settings.integer("k", MOST_LATENTS) if "k" in settings else _fired(made)
    return Origin(
        "saelens", of_hook(made.text("hook_name"), head),
        (of_hook(made.text("hook_name_out")) or UNKNOWN) if transcodes else "", hub_model(made.text("model_name")),
        _policy(made), tokens_trained, k,
    )  # fmt: skip


def _fired(made: Settings) -> int | None:
    """Latents that training aimed at, or that were counted."""
    details = made.section("training_architecture_details")
    if "k" in details:
        return details.integer("k", MOST_LATENTS)
    return max(1, round(made.number("l0"))) if "l0" in made else None


def _policy(made: Settings) -> Mapping[str, Any]:
    """SAELens trains on every position and every token unless it says otherwise."""
    if "context_size" not in made:
        return {}
    context = made.integer("context_size", 2**22, 2)
    positions = made.values.get("seqpos_slice")
    first = positions[0] if isinstance(positions, list) and len(positions) > 1 else None
    return {
        "context": context,
        "bos": made.flag("prepend_bos", True),
        "exclude_special": bool(made.values.get("exclude_special_tokens")),
        "exclude_first": first if type(first) is int and 0 <= first < context else 0,
    }


def processed(settings: Settings) -> tuple[str, ...]:
    """A note where the model that was read had been rewritten by transformer-lens; saelab reads models as they are."""
    given = settings.section("metadata").section("model_from_pretrained_kwargs")
    on = [key for key in _PROCESSED if given.flag(key, False)]
    if not on:
        return ()
    return (f"the model it was trained on was changed by transformer-lens ({', '.join(on)}); saelab reads it raw",)
