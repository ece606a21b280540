"""SAELens 6 (cfg.json, sae_weights.safetensors): every architecture whose function a Dictionary has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import saelab
from saelab.dictionaries.config import (
    Allocation,
    Budgeted,
    DictionaryConfig,
    Gated,
    JumpRelu,
    MutualChoice,
    Relu,
    TokenChoice,
)
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import staged_directory, write_json
from saelab.disk.tensors import write_tensors
from saelab.errors import UserError
from saelab.hub.formats.format import Entry, Imported, beside
from saelab.hub.formats.parts import STAND_IN_K, Parts, gate, plain, ungated
from saelab.hub.formats.places import known
from saelab.hub.formats.saelens_settings import VERSION, current, origin, processed
from saelab.hub.formats.untrusted import MOST_INPUTS, MOST_LATENTS, Settings, read_weights
from saelab.models.site import UNKNOWN, Site

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_SCALER, _RUNNER = "activation_scaler.json", "runner_cfg.json"
_SUPPORTED = ("standard", "topk", "jumprelu", "gated", "transcoder", "jumprelu_transcoder")
_REFUSED = {
    "skip_transcoder": "has a skip connection, which no Dictionary has",
    "jumprelu_skip_transcoder": "has a skip connection, which no Dictionary has",
    "abstopk": "fires on negative values too",
    "temporal": "looks at other tokens",
    "matching_pursuit": "encodes step by step",
    "batchtopk": "is a training checkpoint; SAELens' save_inference_model writes what can be read",
    "matryoshka_batchtopk": "is a training checkpoint; SAELens' save_inference_model writes what can be read",
}
_NORMALISED = {
    "layer_norm": "centres and scales every token by itself, which no weights can hold",
    "constant_norm_rescale": "scales every token by its own norm, which no weights can hold",
    "covariance_whitening": "needs a whitening matrix; fold it with SAELens' fold_activation_whitening first",
}


@dataclass(frozen=True)
class SaeLens:
    """`z = (s·x − b_dec) W_enc + b_enc` with `W_enc [d, F]`; thresholds in the units of z. Source: sae_lens/saes."""

    name: str = "saelens"

    def found(self, names: Collection[str]) -> list[Entry]:
        return list(beside(names, (CONFIG, WEIGHTS), (_SCALER, _RUNNER)))

    def recognises(self, folder: Path) -> bool:
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            return False
        settings = Settings.load(folder / CONFIG)
        return "d_in" in settings and "d_sae" in settings

    def read(self, folder: Path) -> Imported:
        settings = current(Settings.load(folder / CONFIG))
        architecture, scale, notes = self._checked(settings, folder)
        transcodes = architecture.endswith("transcoder")
        d, F = settings.integer("d_in", MOST_INPUTS), settings.integer("d_sae", MOST_LATENTS)
        d_out = settings.integer("d_out", MOST_INPUTS) if transcodes else d
        weights, precision = read_weights(folder / WEIGHTS, _shapes(architecture, d, F, d_out))
        if precision != "float32":
            notes.append(f"weights were stored as {precision} and are computed with in float32")
        runner = Settings.load(folder / _RUNNER) if (folder / _RUNNER).is_file() else settings.section("metadata")
        tokens = runner.integer("training_tokens", 2**50, 0) if "training_tokens" in runner else 0
        made = origin(settings, transcodes, tokens)
        if architecture == "topk":
            settings.integer("k", F)
        centred = settings.flag("apply_b_dec_to_input", not transcodes)
        if not centred and not transcodes:
            notes.append("b_dec is not subtracted from the input: W_enc b_dec was added to the encoder's bias")
        parts = _parts(architecture, weights, centred, scale)
        if settings.flag("rescale_acts_by_decoder_norm", False):
            parts = _rescaled(parts, folder / WEIGHTS)
            notes.append("norms of the decoder's rows were folded into the encoder (rescale_acts_by_decoder_norm)")
        if architecture == "jumprelu" and _one_number(parts.threshold) and _was_batchtopk(settings):
            allocation: Allocation = MutualChoice()
            notes.append("jumprelu with one threshold that batchtopk training left: mutual choice")
        else:
            allocation = _ALLOCATIONS[architecture]
        dictionary = parts.assemble(allocation, made)
        return Imported(dictionary, (*notes, *processed(settings), *made.notes()))

    def _checked(self, settings: Settings, folder: Path) -> tuple[str, float, list[str]]:
        """Architecture and input factor, once nothing in the settings stands against them."""
        architecture = settings.text("architecture")
        if architecture not in _SUPPORTED:
            reason = _REFUSED.get(architecture, f"is unknown; supported are {', '.join(_SUPPORTED)}")
            settings.refuse("architecture", f"{architecture!r} {reason}")
        if architecture.endswith("transcoder") and settings.flag("apply_b_dec_to_input", False):
            settings.refuse("apply_b_dec_to_input", "is on, and SAELens has no such transcoder")
        if settings.flag("rescale_acts_by_decoder_norm", False) and architecture != "topk":
            settings.refuse("rescale_acts_by_decoder_norm", f"is on, and SAELens has it for topk, not {architecture}")
        if (shape := settings.text("reshape_activations")) not in ("", "none", "hook_z"):
            settings.refuse("reshape_activations", f"{shape!r} is unknown")
        normalised = settings.text("normalize_activations") or "none"
        if normalised == "none":
            return architecture, 1.0, []
        if normalised != "expected_average_only_in":
            reason = _NORMALISED.get(normalised, "is unknown")
            settings.refuse("normalize_activations", f"{normalised!r} {reason}")
        if architecture.endswith("transcoder"):
            settings.refuse("normalize_activations", f"{normalised!r} of a transcoder leaves its outputs' factor open")
        if not (folder / _SCALER).is_file():
            settings.refuse(
                "normalize_activations", f"{normalised!r} needs the factor that inputs were multiplied by in training; "
                f"it is neither folded into the weights nor given in {_SCALER}"
            )  # fmt: skip
        factor = Settings.load(folder / _SCALER).number("scaling_factor")
        return architecture, factor, [f"inputs are multiplied by {factor:.6g}, as {_SCALER} says"]

    def write(self, dictionary: Dictionary, folder: Path) -> tuple[str, ...]:
        folded = plain(dictionary, "SAELens", transcoders=True)
        architecture = _architecture(folded)
        weights = {"W_enc": folded.W_enc.T, "W_dec": folded.W_dec, "b_dec": folded.b_dec}
        weights |= ungated(folded) if architecture == "gated" else {"b_enc": folded.b_enc}
        if architecture.startswith("jumprelu"):
            weights["threshold"] = folded.threshold
        with staged_directory(folder) as staging:
            write_tensors(staging / WEIGHTS, weights)
            write_json(staging / CONFIG, _settings(folded, architecture))
        return _lost(folded)


_ALLOCATIONS: dict[str, Allocation] = {
    "standard": Relu(), "topk": TokenChoice(), "jumprelu": JumpRelu(), "gated": Gated(), "transcoder": Relu(),
    "jumprelu_transcoder": JumpRelu(),
}  # fmt: skip


def _shapes(architecture: str, d: int, F: int, d_out: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d, F), "W_dec": (F, d_out), "b_dec": (d_out,)}
    if architecture == "gated":
        return shapes | {"b_gate": (F,), "b_mag": (F,), "r_mag": (F,)}
    return shapes | {"b_enc": (F,)} | ({"threshold": (F,)} if architecture.startswith("jumprelu") else {})


def _parts(architecture: str, weights: dict[str, Tensor], centred: bool, scale: float) -> Parts:
    F = weights["W_enc"].shape[1]
    b_enc = weights["b_gate"] if architecture == "gated" else weights["b_enc"]
    parts = Parts(weights["W_enc"].T, weights["W_dec"], b_enc, weights["b_dec"], centred, scale)
    if architecture == "topk":
        return parts
    parts = replace(parts, threshold=weights.get("threshold", torch.zeros(F)))
    if architecture != "gated":
        return parts
    gain, shift = gate(b_enc, weights["r_mag"], weights["b_mag"])
    return replace(parts, gain=gain, shift=shift)


def _rescaled(parts: Parts, path: Path) -> Parts:
    """Select by `z·|W_dec row|` and decode with unit rows: the same, with the norms inside the encoder."""
    norms = parts.W_dec.double().norm(dim=1)
    if not (norms > 0).all():
        raise UserError(f"{path}: a row of W_dec is zero, and rescale_acts_by_decoder_norm divides by its norm")
    return replace(
        parts, W_enc=parts.W_enc * norms[:, None], b_enc=parts.b_enc * norms, W_dec=parts.W_dec / norms[:, None]
    )


def _one_number(threshold: Tensor) -> bool:
    return bool((threshold == threshold[0]).all())


def _was_batchtopk(settings: Settings) -> bool:
    made = settings.section("metadata")
    trained = made.text("training_architecture").endswith("batchtopk")
    return trained and "k" in made.section("training_architecture_details")


def _architecture(dictionary: Dictionary) -> str:
    config = dictionary.config
    kind = "gated" if dictionary.gain.numel() else "topk" if config.rule == "topk" else "jumprelu"
    if kind == "jumprelu" and config.allocation.kind == "relu" and bool((dictionary.threshold <= 0).all()):
        kind = "standard"
    if not config.targets:
        return kind
    if kind not in ("jumprelu", "standard"):
        raise UserError(f"SAELens has no {kind} transcoder; it has standard and jumprelu ones")
    return "transcoder" if kind == "standard" else "jumprelu_transcoder"


def _settings(dictionary: Dictionary, architecture: str) -> dict[str, Any]:
    """cfg.json of a folded dictionary."""
    config, place = dictionary.config, _hook(dictionary.site)
    all_heads = place["hook_head_index"] is None and (place["hook_name"] or "").endswith(".hook_z")
    settings: dict[str, Any] = {
        "architecture": architecture, "d_in": dictionary.d_in, "d_sae": dictionary.d_sae, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": not config.targets, "normalize_activations": "none",
        "reshape_activations": "hook_z" if all_heads else "none",
    }  # fmt: skip
    if architecture == "topk":
        settings |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
    metadata: dict[str, Any] = {
        "sae_lens_version": VERSION, "saelab_version": saelab.__version__, "model_class_name": "HookedTransformer",
        "model_name": None if config.model == UNKNOWN else config.model, "model_from_pretrained_kwargs": {}, **place,
        "training_architecture": "batchtopk" if config.allocation.kind == "mutual" else config.architecture,
        "training_architecture_details": {"k": config.k} if _knows_k(config) else {},
        "training_tokens": config.tokens_trained,
    }  # fmt: skip
    if config.targets:
        settings["d_out"] = dictionary.d_out
        metadata["hook_name_out"] = _hook(config.targets[0].site)["hook_name"]
    if config.policy:
        metadata |= {
            "context_size": config.policy.get("context"), "prepend_bos": config.policy.get("bos"),
            "exclude_special_tokens": config.policy.get("exclude_special"),
            "seqpos_slice": [config.policy.get("exclude_first", 0), None],
        }  # fmt: skip
    return settings | {"metadata": metadata}


def _knows_k(config: DictionaryConfig) -> bool:
    """k only stands in for what another tool's files did not say."""
    unsaid = config.imported_from and not isinstance(config.allocation, Budgeted)
    return not (unsaid and config.k == min(STAND_IN_K, config.d_sae))


def _hook(site: str) -> dict[str, Any]:
    """SAELens' name of a site."""
    if not known(site):
        return {"hook_name": None if site == UNKNOWN else site, "hook_head_index": None}
    place = Site.parse(site)
    return {"hook_name": place.hook_name, "hook_head_index": place.head}


def _lost(dictionary: Dictionary) -> tuple[str, ...]:
    said = []
    if known(dictionary.site) and (place := Site.parse(dictionary.site)).kind in "qkv" and place.head is None:
        said.append(f"SAELens has no way to flatten the heads of {place}: give it flat activations")
    return (*said, "fingerprints and the complete settings of training have no place in cfg.json")
