"""Settings: frozen models that refuse unknown keys, read from YAML and overridden from the command line.

Precedence is defaults < file < overrides. The docstring under a field is its help text on the command line.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from saelab.errors import UserError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_BYTE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def _parse(value: object, units: Mapping[str, int], examples: str) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?)\s*([a-z]*)\s*", value.lower())
    if match is None or match[2] not in units:
        raise ValueError(f"{value!r} is not a size; write it like {examples}")
    number = float(match[1].replace("_", "")) * units[match[2]]
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def parse_count(value: object) -> object:
    """Read "10M", "1.2k" or "1e6" as a whole number; anything but a string passes through unchanged."""
    return _parse(value, _UNITS, "500k, 10M or 1.5B")


def parse_bytes(value: object) -> object:
    """Read "64GB" or "512MiB" as bytes; anything but a string passes through unchanged."""
    return _parse(value, {"": 1, **_BYTE_UNITS}, "512MB, 64GB or 8GiB")


Count = Annotated[int, BeforeValidator(parse_count)]
"""A number of tokens, rows or steps that may be written "10M"."""

Bytes = Annotated[int, BeforeValidator(parse_bytes)]
"""A number of bytes that may be written "64GB"."""


class Config(BaseModel):
    """Base of every setting in the house: frozen, and an unknown key is an error, not a silence."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(
    cls: type[ConfigT], path: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> ConfigT:
    """Build `cls` from defaults, then the YAML file at `path`, then dotted `overrides` (`{"sae.k": "64"}`).

    Raises:
        UserError: naming the file or key, what is wrong with it, and the nearest known key.
    """
    return build(cls, read_settings(path, overrides), where=said_in(path))


def read_settings(path: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The YAML file at `path` under dotted `overrides`, as plain values that nobody has checked yet.

    Override values that are strings are read as YAML scalars or lists (`"64"`, `"[16, 32]"`, `"true"`). One that goes
    into a list of sections goes into each of them.
    """
    values: dict[str, Any] = read_yaml(path) if path is not None else {}
    for key, value in (overrides or {}).items():
        _assign(values, key.split("."), read_scalar(value), key)
    return values


def said_in(path: Path | str | None) -> str:
    """Where settings were given, as the opening of a sentence."""
    return str(path) if path is not None else "the command line"


def build(cls: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Validate plain `values` into `cls`; `where` (a file name, say) opens the sentence of a refusal."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(cls, error.errors()[0])}") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping from `path`; an empty file is an empty mapping."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"config file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"config file {path} must hold keys and values, not a {type(content).__name__}")
    return content


def to_yaml(config: Config) -> str:
    """The complete settings as YAML, every default written out, so that the file replays the run."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def config_digest(config: Config) -> str:
    """SHA-256 of the settings: equal digests mean equal settings."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def as_of_now(cls: type[ConfigT], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an earlier saelab wrote, with the defaults of keys that it did not know."""
    try:
        return build(cls, settings, where="").model_dump(mode="json")
    except UserError:
        return dict(settings)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys at which two dumped configs differ, with both values: "sae.k: 16 → 32"."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} → {after}")
    return lines


def read_scalar(value: Any) -> Any:
    """A word of the command line as YAML has it; what is no string stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value  # an unquoted string such as "a: b [" stays what the user typed


def _assign(values: dict[str, Any], parts: Sequence[str], value: Any, key: str) -> None:
    part, *rest = parts
    if not rest:
        values[part] = value
        return
    inside = values.setdefault(part, {})
    for section in inside if isinstance(inside, list) else [inside]:
        if not isinstance(section, dict):
            raise UserError(f"--{key}: {part!r} holds a single value, so it has no key inside it to set")
        _assign(section, rest, value, key)


def _explain(cls: type[BaseModel], error: ErrorDetails) -> str:
    """One sentence for pydantic's first complaint."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "the settings"
    match error["type"]:
        case "extra_forbidden":
            known = _keys_at(cls, location[:-1])
            near = difflib.get_close_matches(location[-1], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            return f"unknown key {key!r}; {hint}"
        case "missing":
            return f"key {key!r} is required"
        case _:
            message = error["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            # A check across keys has the whole section as its input: echoing that would bury the sentence.
            given = "" if isinstance(error["input"], dict | BaseModel) else f" (got {error['input']!r})"
            return f"{key}: {message}{given}"


def _keys_at(cls: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Field names of the model found by following `location`; tags of unions are stepped over."""
    models: list[type[BaseModel]] = [cls]
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        inside = [inner for field in fields for inner in models_in(field.annotation)]
        models = inside or models
    return sorted({name for model in models for name in model.model_fields})


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation allows: one, several told apart by `kind`, or none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in models_in(argument)]
