"""What strangers wrote, read with care: files of bounded size, settings checked one by one, tensors before they are
loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelab.errors import UserError

MOST_INPUTS = 2**20
MOST_LATENTS = 2**26
_LARGEST_JSON = 4 * 2**20  # bytes
_LONGEST_TEXT = 500  # of a name
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Settings:
    """A JSON object whose values are asked for by key and kind; `where` (file, then keys) opens every refusal."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    @classmethod
    def load(cls, path: Path) -> Settings:
        """The object in a JSON file.

        Raises:
            UserError: no file, too large or too deep, not JSON, numbers that JSON does not have, or not an object.
        """
        if not path.is_file():
            raise UserError(f"{path} does not exist or is not a file")
        if path.stat().st_size > _LARGEST_JSON:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes: too large for settings")
        try:
            values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is damaged: {error}") from None
        except RecursionError:
            raise UserError(f"{path} is damaged: it is nested too deep for settings") from None
        if not isinstance(values, dict):
            raise UserError(f"{path} must hold keys and values, not a {type(values).__name__}")
        return cls(values, str(path))

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Raise the sentence that names the file and the key."""
        raise UserError(f"{self.where}: {key} {reason}")

    def integer(self, key: str, most: int, least: int = 1) -> int:
        """A whole number between `least` and `most`, required."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(key, f"must be a whole number from {least} to {most:,}, not {_shown(value)}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false; `default` where the key is missing or null."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(key, f"must be true or false, not {_shown(value)}")
        return value

    def text(self, key: str) -> str:
        """A name that can be printed; "" where the key is missing or null."""
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
            self.refuse(key, f"must be a name of at most {_LONGEST_TEXT} printable characters, not {_shown(value)}")
        return value

    def number(self, key: str) -> float:
        """A positive number, required."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            self.refuse(key, f"must be a positive number, not {_shown(value)}")
        return float(value)

    def section(self, key: str) -> Settings:
        """The object under `key`; an empty one where the key is missing or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, f"must hold keys and values, not {_shown(value)}")
        return Settings(value or {}, f"{self.where}: {key}")

    def only(self, known: Collection[str], reader: str) -> None:
        """Refuse keys that are not in `known`: what they change can't be guessed."""
        strange = sorted(self.values.keys() - set(known))
        if strange:
            self.refuse(_shown(strange[0]), f"is not a key that {reader}")


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], str]:
    """Exactly the tensors `shapes` of a safetensors file, as fp32, and in which precision they were stored.

    The header is held against `shapes` before any tensor is loaded.

    Raises:
        UserError: the file is missing or damaged; tensors are missing, unexpected, misshapen, of another kind than
            floating point, NaN or infinite.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            headers = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            check_shapes({name: tuple(part.get_shape()) for name, part in headers.items()}, shapes, path)
            kinds = {name: part.get_dtype() for name, part in headers.items()}
            for name, kind in kinds.items():
                if kind not in _FLOATS:
                    raise UserError(f"{path}: {name} is stored as {kind}, not as {', '.join(_FLOATS.values())}")
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {error}") from None
    require_finite(tensors, path)
    return tensors, ", ".join(sorted({_FLOATS[kind] for kind in kinds.values()}))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of the tensors of a safetensors file; none is loaded.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {error}") from None


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuse tensors that are missing, unexpected or misshapen."""
    for name in sorted(expected.keys() - found.keys()):
        raise UserError(f"{path} lacks the tensor {name}")
    for name in sorted(found.keys() - expected.keys()):
        raise UserError(f"{path} holds the tensor {_shown(name)}, which this kind of dictionary does not have")
    for name, shape in expected.items():
        if found[name] != shape:
            raise UserError(f"{path}: {name} has shape {list(found[name])} where the settings promise {list(shape)}")


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse NaN and infinite weights."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path}: {name} holds NaN or infinite numbers")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
