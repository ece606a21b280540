"""dictionary_learning (ae.pt, config.json): its seven classes, read; the nearest exact one of six, written."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab.dictionaries.config import Allocation, Gated, JumpRelu, MutualChoice, Relu, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import staged_directory, write_json
from saelab.errors import UserError
from saelab.hub.formats.dictionary_learning_settings import check_k, named_site, origin
from saelab.hub.formats.format import Entry, Imported, beside
from saelab.hub.formats.parts import Parts, bias_of_centre, gate, plain, ungated
from saelab.hub.formats.pickled import read_state
from saelab.hub.formats.untrusted import MOST_INPUTS, MOST_LATENTS, Settings, check_shapes
from saelab.models.site import UNKNOWN

CONFIG, WEIGHTS = "config.json", "ae.pt"
_ALLOCATIONS: dict[str, Allocation] = {
    "AutoEncoder": Relu(), "AutoEncoderNew": Relu(), "GatedAutoEncoder": Gated(), "JumpReluAutoEncoder": JumpRelu(),
    "AutoEncoderTopK": TokenChoice(), "BatchTopKSAE": MutualChoice(), "MatryoshkaBatchTopKSAE": MutualChoice(),
}  # fmt: skip
# Our names of theirs: the encoder and the decoder as [F, d], or transposed where the name ends in "ᵀ".
_LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_decᵀ"}
_FLAT = {"W_enc": "W_encᵀ", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
_NAMES = {
    "AutoEncoder": {**_LINEAR, "bias": "b_dec"},
    "AutoEncoderNew": {**_LINEAR, "decoder.bias": "b_dec"},
    "GatedAutoEncoder": {
        "encoder.weight": "W_enc", "decoder.weight": "W_decᵀ", "decoder_bias": "b_dec", "gate_bias": "b_gate",
        "mag_bias": "b_mag", "r_mag": "r_mag",
    },
    "JumpReluAutoEncoder": {**_FLAT, "threshold": "threshold"},
    "AutoEncoderTopK": {**_LINEAR, "b_dec": "b_dec"},
    "BatchTopKSAE": {**_LINEAR, "b_dec": "b_dec"},
    "MatryoshkaBatchTopKSAE": _FLAT,
}  # fmt: skip
_UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class DictionaryLearning:
    """State dicts by class, which only config.json names. Source: dictionary_learning/dictionary.py and trainers/."""

    name: str = "dictionary-learning"

    def found(self, names: Collection[str]) -> list[Entry]:
        return list(beside(names, (CONFIG, WEIGHTS)))

    def recognises(self, folder: Path) -> bool:
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            return False
        return "dict_class" in Settings.load(folder / CONFIG).section("trainer")

    def read(self, folder: Path) -> Imported:
        settings = Settings.load(folder / CONFIG)
        trainer = settings.section("trainer")
        kind = trainer.text("dict_class")
        if kind not in _ALLOCATIONS:
            trainer.refuse("dict_class", f"{kind!r} is unknown; supported are {', '.join(_ALLOCATIONS)}")
        d, F = trainer.integer("activation_dim", MOST_INPUTS), trainer.integer("dict_size", MOST_LATENTS)
        state = read_state(folder / WEIGHTS)
        notes: list[str] = []
        k, threshold = None, None
        if "TopK" in kind:
            k, threshold = _take_numbers(kind, state, F, folder / WEIGHTS, notes)
            check_k(k, trainer, F)
        weights = _ours(kind, state, d, F, folder / WEIGHTS, notes)
        if threshold is not None:
            weights["threshold"] = threshold
        if kind in _UNCENTRED:
            notes.append("b_dec is not subtracted from the input: W_enc b_dec was added to the encoder's bias")
        made = origin(settings, k)
        dictionary = _parts(kind, weights).assemble(_ALLOCATIONS[kind], made)
        return Imported(dictionary, (*notes, *made.notes()))

    def write(self, dictionary: Dictionary, folder: Path) -> tuple[str, ...]:
        folded = plain(dictionary, "dictionary_learning")
        kind, state = _state(folded)
        with staged_directory(folder) as staging:
            torch.save(state, staging / WEIGHTS)
            write_json(staging / CONFIG, {"trainer": _settings(folded, kind)})
        note = f"written as {kind}"
        if kind in _UNCENTRED:
            note += ": W_enc b_dec was taken from the encoder's bias, as it does not subtract b_dec from the input"
        return (note, "config.json has no place for fingerprints, the token policy or the settings of training")


def _take_numbers(
    kind: str, state: dict[str, Tensor], F: int, path: Path, notes: list[str]
) -> tuple[int, Tensor | None]:
    """k and, of the batch-topk classes, the one threshold for every latent; both are taken out of `state`."""
    wanted = {"k": (), "threshold": ()} | ({"group_sizes": None} if kind == "MatryoshkaBatchTopKSAE" else {})
    taken = {name: state.pop(name) for name in wanted if name in state}
    for name, shape in wanted.items():
        if name not in taken or (shape is not None and taken[name].shape != shape):
            raise UserError(f"{path} lacks {name}, or it is not a single number")
    if taken["k"].is_floating_point():
        raise UserError(f"{path}: k is no whole number")
    if kind == "AutoEncoderTopK":
        return int(taken["k"]), None
    threshold = taken["threshold"].float()
    if threshold < 0:
        notes.append("its threshold was never estimated in training: every positive latent fires")
    if kind == "MatryoshkaBatchTopKSAE":
        sizes = taken["group_sizes"]
        if sizes.is_floating_point() or sizes.dim() != 1 or (sizes < 1).any() or int(sizes.sum()) != F:
            raise UserError(f"{path}: group_sizes do not add up to {F} latents")
        notes.append("nested groups are not recorded: all of them are used, as the class does by default")
    return int(taken["k"]), threshold.expand(F)


def _ours(kind: str, state: dict[str, Tensor], d: int, F: int, path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Their tensors under our names, in our orientation, as fp32."""
    sizes = {"W_enc": (F, d), "W_encᵀ": (d, F), "W_dec": (F, d), "W_decᵀ": (d, F), "b_dec": (d,)}
    names = _NAMES[kind]
    check_shapes(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {theirs: sizes.get(ours, (F,)) for theirs, ours in names.items()}, path,
    )  # fmt: skip
    kinds = {tensor.dtype for tensor in state.values()}
    if strange := kinds - set(_FLOATS):
        raise UserError(f"{path} holds weights stored as {strange.pop()}, not as floating point numbers")
    if kinds != {torch.float32}:
        stored = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        notes.append(f"weights were stored as {stored} and are computed with in float32")
    return {
        ours.removesuffix("ᵀ"): (state[theirs].T if ours.endswith("ᵀ") else state[theirs]).float()
        for theirs, ours in names.items()
    }


def _parts(kind: str, weights: dict[str, Tensor]) -> Parts:
    F = len(weights["W_enc"])
    b_enc = weights["b_gate"] if kind == "GatedAutoEncoder" else weights["b_enc"]
    parts = Parts(weights["W_enc"], weights["W_dec"], b_enc, weights["b_dec"], kind not in _UNCENTRED)
    if kind == "AutoEncoderTopK":
        return parts
    parts = replace(parts, threshold=weights.get("threshold", torch.zeros(F)))
    if kind != "GatedAutoEncoder":
        return parts
    gain, shift = gate(b_enc, weights["r_mag"], weights["b_mag"])
    return replace(parts, gain=gain, shift=shift)


def _state(dictionary: Dictionary) -> tuple[str, dict[str, Tensor]]:
    """The class that computes what a folded dictionary computes, codes included, and its state."""
    kind = _nearest(dictionary)
    b_enc, threshold = dictionary.b_enc, dictionary.threshold
    if kind in _UNCENTRED:
        b_enc = (b_enc.double() - bias_of_centre(dictionary.W_enc, dictionary.b_dec)).float()
    weights = {
        "W_enc": dictionary.W_enc, "W_dec": dictionary.W_dec, "b_enc": b_enc, "b_dec": dictionary.b_dec,
        "threshold": threshold,
    } | (ungated(dictionary) if kind == "GatedAutoEncoder" else {})  # fmt: skip
    state = {
        theirs: (weights[ours.removesuffix("ᵀ")].T if ours.endswith("ᵀ") else weights[ours]).contiguous().clone()
        for theirs, ours in _NAMES[kind].items()
    }
    if kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        state["k"] = torch.tensor(dictionary.config.k, dtype=torch.int)
        state["threshold"] = threshold[0].clone() if threshold.numel() else torch.tensor(-1.0)
    return kind, state


def _nearest(dictionary: Dictionary) -> str:
    config, threshold = dictionary.config, dictionary.threshold
    if config.rule == "topk":
        return "AutoEncoderTopK"
    if dictionary.gain.numel():
        return "GatedAutoEncoder"
    if config.allocation.kind == "relu" and bool((threshold <= 0).all()):
        # AutoEncoder normalises decoder rows when it is loaded, which changes the unit of the codes.
        norms = dictionary.W_dec.norm(dim=1)
        return "AutoEncoder" if torch.allclose(norms, torch.ones_like(norms)) else "AutoEncoderNew"
    if config.allocation.kind == "mutual" and bool((threshold == threshold[0]).all()):
        return "BatchTopKSAE"
    return "JumpReluAutoEncoder"


def _settings(dictionary: Dictionary, kind: str) -> dict[str, Any]:
    config = dictionary.config
    layer, submodule = named_site(config.site)
    return {
        "trainer_class": "saelab", "dict_class": kind, "activation_dim": config.d_in, "dict_size": config.d_sae,
        "k": config.k, "layer": layer, "lm_name": None if config.model == UNKNOWN else config.model,
        "submodule_name": submodule,
    }  # fmt: skip
