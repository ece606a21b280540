"""Gemma Scope: JumpReLU dictionaries of Gemma 2 (params.npz alone) and of Gemma 3 (params.safetensors, config.json)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from torch import Tensor

from saelab.dictionaries.config import JumpRelu
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.hub.formats.format import Entry, Imported, beside
from saelab.hub.formats.parts import Origin, Parts
from saelab.hub.formats.places import UNKNOWN
from saelab.hub.formats.untrusted import MOST_INPUTS, MOST_LATENTS, Settings, check_shapes, read_weights, tensor_shapes
from saelab.hub.formats.zipped import array_shapes, read_arrays

ARRAYS, WEIGHTS, CONFIG = "params.npz", "params.safetensors", "config.json"
_TENSORS: Final = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
_SKIP: Final = "affine_skip_connection"
_POLICY: Final[Mapping[str, Any]] = {"context": 1024, "bos": True}
"""All of them were trained on rows that begin with <bos>, which took no part."""
_READ: Final = re.compile(r"model\.layers\.(\d+)\.(output|self_attn\.o_proj\.input|post_feedforward_layernorm\.output)")
_KINDS: Final = {
    "output": "resid_post", "self_attn.o_proj.input": "attn.z", "post_feedforward_layernorm.output": "mlp_out"
}  # fmt: skip


@dataclass(frozen=True)
class GemmaScope:
    """`f = relu(z) · 1[z > θ]`, `z = x W_enc + b_enc`: the input is not centred. Source: arXiv 2408.05147."""

    name: str = "gemma-scope"

    def found(self, names: Collection[str]) -> list[Entry]:
        return list(beside(names, (ARRAYS,)))

    def recognises(self, folder: Path) -> bool:
        return (folder / ARRAYS).is_file() and set(_TENSORS) <= {name.lower() for name in array_shapes(folder / ARRAYS)}

    def read(self, folder: Path) -> Imported:
        path = folder / ARRAYS
        shapes = array_shapes(path)
        known = {name.lower(): name for name in shapes}
        if len(known) < len(shapes):
            raise UserError(f"{path} holds two arrays whose names differ in capitals alone")
        scaled = known.pop("scaling_factor", None)
        _check({name: shapes[known[name]] for name in known}, path)
        tensors = read_arrays(path, known)
        if scaled is not None and not bool((read_arrays(path, {"s": scaled})["s"] == 1).all()):
            raise UserError(f"{path}: scaling_factor is not 1: rescaled activations are not supported")
        note = (
            "params.npz does not say what it reads; its repository does: resid_post, mlp_out or attn.z (-res, -mlp, "
            "-att) of the layer in the folder's name; -transcoders read the MLP's normed input and write mlp_out"
        )
        origin = Origin(self.name, policy=_POLICY)
        return Imported(_dictionary(tensors, origin), (note, _UNCENTRED, *origin.notes()))

    def write(self, dictionary: Dictionary, folder: Path) -> NoReturn:
        raise UserError("gemma-scope is a format that saelab reads and does not write; SAELens reads --to saelens")


@dataclass(frozen=True)
class GemmaScope2:
    """The same function; config.json says where it belongs. Source: SAELens' loader of it."""

    name: str = "gemma-scope-2"

    def found(self, names: Collection[str]) -> list[Entry]:
        return list(beside(names, (WEIGHTS, CONFIG)))

    def recognises(self, folder: Path) -> bool:
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            return False
        return Settings.load(folder / CONFIG).text("architecture") == "jump_relu"

    def read(self, folder: Path) -> Imported:
        settings, path = Settings.load(folder / CONFIG), folder / WEIGHTS
        shapes = tensor_shapes(path)
        if settings.flag("affine_connection", False) or _SKIP in shapes:
            settings.refuse("affine_connection", "is on: no Dictionary has a skip connection")
        read, written = settings.text("hf_hook_point_in"), settings.text("hf_hook_point_out")
        target = _site(written) if written and written != read else ""
        _check(shapes, path, transcodes=bool(target))
        tensors, precision = read_weights(path, shapes)
        stored = [f"weights were stored as {precision} and are computed with in float32"]
        l0 = max(1, round(settings.number("l0"))) if "l0" in settings else None
        origin = Origin(self.name, _site(read), target, _model(settings.text("model_name")), _POLICY, k=l0)
        notes = [*(stored if precision != "float32" else []), *([] if target else [_UNCENTRED]), *origin.notes()]
        return Imported(_dictionary(tensors, origin), tuple(notes))

    def write(self, dictionary: Dictionary, folder: Path) -> NoReturn:
        raise UserError("gemma-scope-2 is a format that saelab reads and does not write; SAELens reads --to saelens")


_UNCENTRED: Final = "b_dec is not subtracted from the input: W_enc b_dec was added to the encoder's bias"


def _check(found: Mapping[str, tuple[int, ...]], path: Path, transcodes: bool = False) -> None:
    """Refuse anything but the five tensors, in shapes that fit each other."""
    shape = found.get("w_enc", ())
    if len(shape) != 2 or not (0 < shape[0] <= MOST_INPUTS and 0 < shape[1] <= MOST_LATENTS):
        raise UserError(f"{path}: w_enc must be a matrix [d_in, d_sae], not of shape {list(shape)}")
    d, F = shape
    d_out = found["w_dec"][-1] if transcodes and len(found.get("w_dec", ())) == 2 else d
    check_shapes(
        found, {"w_enc": (d, F), "w_dec": (F, d_out), "b_enc": (F,), "b_dec": (d_out,), "threshold": (F,)}, path
    )


def _dictionary(tensors: Mapping[str, Tensor], origin: Origin) -> Dictionary:
    parts = Parts(
        tensors["w_enc"].T, tensors["w_dec"], tensors["b_enc"], tensors["b_dec"], centred=False,
        threshold=tensors["threshold"],
    )  # fmt: skip
    return parts.assemble(JumpRelu(), origin)


def _site(hook: str) -> str:
    """The site of a hook point of Hugging Face's Gemma 3; its own name where saelab has no such site."""
    match = _READ.fullmatch(hook)
    return f"blocks.{match[1]}.{_KINDS[match[2]]}" if match else hook or UNKNOWN


def _model(name: str) -> str:
    """The model's name on the Hub; config.json writes "v3" where the Hub says "3"."""
    if not name:
        return UNKNOWN
    full = (name if "/" in name else f"google/{name}").replace("-v3", "-3")
    return full.removesuffix("-pt") if "270m" in full else full
