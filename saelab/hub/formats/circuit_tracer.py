"""Transcoder sets of circuit-tracer (config.yaml, layer_N.safetensors), of which one layer is read at a time."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import torch

from saelab.config import read_yaml
from saelab.dictionaries.config import Allocation, JumpRelu, Relu, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.hub.formats.format import Entry, Imported, beside
from saelab.hub.formats.parts import Origin, Parts
from saelab.hub.formats.places import UNKNOWN, hub_model, of_hook
from saelab.hub.formats.untrusted import MOST_INPUTS, MOST_LATENTS, Settings, read_weights, tensor_shapes

CONFIG: Final = "config.yaml"
_LAYER: Final = re.compile(r"layer_(\d{1,4})\.safetensors")
_KINDS: Final = ("transcoder_set", "cross_layer_transcoder")
_LARGEST_YAML: Final = 2**20  # bytes
_THRESHOLD: Final = "activation_function.threshold"


@dataclass(frozen=True)
class CircuitTracer:
    """`f = act(W_enc x + b_enc)`, `x_hat = W_decᵀ f + b_dec`, `W_enc [F, d]` as ours. Source: its loader."""

    name: str = "circuit-tracer"

    def found(self, names: Collection[str]) -> list[Entry]:
        """One entry a layer: FOLDER/layer_3 is config.yaml and layer_3.safetensors of FOLDER."""
        entries = []
        for entry in beside(names, (CONFIG,)):
            prefix = f"{entry.id}/" if entry.id else ""
            layers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            for layer in sorted((name for name in layers if _LAYER.fullmatch(name)), key=_number):
                entries.append(Entry(prefix + layer.removesuffix(".safetensors"), (*entry.files, prefix + layer)))
        return entries

    def recognises(self, folder: Path) -> bool:
        return (folder / CONFIG).is_file() and bool(_layers(folder)) and _settings(folder).text("model_kind") in _KINDS

    def read(self, folder: Path) -> Imported:
        settings, layers = _settings(folder), _layers(folder)
        if settings.text("model_kind") != "transcoder_set":
            settings.refuse("model_kind", f"{settings.text('model_kind')!r}: latents that write to several layers "
                            "share no one reconstruction, which a Dictionary has")  # fmt: skip
        if len(layers) != 1:
            names = ", ".join(layers[:3])
            raise UserError(
                f"{folder} holds {len(layers)} transcoders ({names}, …): read one at a time, from a folder with "
                f"{CONFIG} and its file alone, or from the Hub as USER/REPO:{layers[0].removesuffix('.safetensors')}"
            )
        return _transcoder(settings, folder / layers[0])

    def write(self, dictionary: Dictionary, folder: Path) -> NoReturn:
        raise UserError("circuit-tracer is a format that saelab reads and does not write; SAELens reads --to saelens")


def _transcoder(settings: Settings, path: Path) -> Imported:
    found = tensor_shapes(path)
    if "W_skip" in found:
        raise UserError(f"{path} holds W_skip: no Dictionary has a skip connection")
    if len(found.get("W_enc", ())) != 2 or len(found.get("W_dec", ())) != 2:
        raise UserError(f"{path} must hold the matrices W_enc [d_sae, d_in] and W_dec [d_sae, d_out]")
    (F, d), d_out = found["W_enc"], found["W_dec"][1]
    if not (0 < d <= MOST_INPUTS and 0 < d_out <= MOST_INPUTS and 0 < F <= MOST_LATENTS):
        raise UserError(f"{path}: W_enc of shape {[F, d]} and W_dec of width {d_out} can't be")
    shapes = {"W_enc": (F, d), "W_dec": (F, d_out), "b_enc": (F,), "b_dec": (d_out,)}
    if _THRESHOLD in found:  # one for all latents, or one each
        shapes[_THRESHOLD] = found[_THRESHOLD] if found[_THRESHOLD] in ((), (1,), (1, F)) else (F,)
    weights, precision = read_weights(path, shapes)
    threshold = weights.get(_THRESHOLD, torch.zeros(F)).reshape(-1).expand(F)
    if (threshold < 0).any():
        raise UserError(f"{path}: {_THRESHOLD} is negative: latents that fire on negative values are not supported")
    allocation, k = _activation(settings, _THRESHOLD in found, F)
    layer = _number(path.name)
    origin = Origin(
        "circuit-tracer", _site(settings, "feature_input_hook", layer), _site(settings, "feature_output_hook", layer),
        hub_model(settings.text("model_name")), k=k,
    )  # fmt: skip
    parts = Parts(weights["W_enc"], weights["W_dec"], weights["b_enc"], weights["b_dec"])
    if not isinstance(allocation, TokenChoice):
        parts = Parts(parts.W_enc, parts.W_dec, parts.b_enc, parts.b_dec, threshold=threshold)
    notes = [f"weights were stored as {precision} and are computed with in float32"] if precision != "float32" else []
    return Imported(parts.assemble(allocation, origin), (*notes, *origin.notes()))


def _activation(settings: Settings, has_threshold: bool, F: int) -> tuple[Allocation, int | None]:
    """What decides which latents fire, and how many do where that is known."""
    named = settings.text("activation").lower().replace("_", "")
    activation = named or ("jumprelu" if has_threshold else "topk" if "k" in settings else "relu")
    if has_threshold != (activation == "jumprelu"):
        there = "there are" if has_threshold else "there are no"
        settings.refuse("activation", f"is {activation!r}, and {there} thresholds among the weights")
    if activation == "topk":
        return TokenChoice(), settings.integer("k", F)
    if activation not in ("relu", "jumprelu"):
        settings.refuse("activation", f"is {activation!r}; relu, jumprelu and topk are supported")
    return (JumpRelu() if has_threshold else Relu()), None


def _settings(folder: Path) -> Settings:
    path = folder / CONFIG
    if path.stat().st_size > _LARGEST_YAML:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes: too large for settings")
    try:
        return Settings(read_yaml(path), str(path))
    except RecursionError:
        raise UserError(f"{path} is damaged: it is nested too deep for settings") from None


def _layers(folder: Path) -> list[str]:
    return sorted((path.name for path in folder.iterdir() if _LAYER.fullmatch(path.name)), key=_number)


def _number(name: str) -> int:
    match = _LAYER.fullmatch(name)
    return int(match[1]) if match else -1


def _site(settings: Settings, key: str, layer: int) -> str:
    hook = settings.text(key)
    return of_hook(f"blocks.{layer}.{hook}") if hook else UNKNOWN
