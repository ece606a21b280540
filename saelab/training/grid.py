"""Grids: settings with lists where single values belong, and the runs that all their combinations make."""

from __future__ import annotations

import itertools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from saelab.config import Config, build, config_digest, models_in, read_scalar
from saelab.errors import UserError

ConfigT = TypeVar("ConfigT", bound=Config)

NAME_LENGTH = 120  # of a file name, well below what file systems allow
_SEQUENCES = (list, tuple, set, frozenset, Sequence)


@dataclass(frozen=True)
class Point(Generic[ConfigT]):
    """One combination."""

    name: str
    """Of its folder: "topk-k16"; "" where no setting is a list."""
    config: ConfigT


def expand(cls: type[ConfigT], values: Mapping[str, Any], where: str) -> list[Point[ConfigT]]:
    """Every combination of the lists in `values`, in the order in which they are written, the last list fastest.

    - A list stands for its elements one after another: `k: [16, 32]`. A list of sections does too, and a section may
      hold lists of its own: `sae: [{preset: topk, k: [16, 32]}, {preset: gradient, k: 32}]`.
    - Where the setting is a list itself (`prefixes`), only a list that holds lists (or null) stands for several.
    - Numbers and choices may be written with commas alone: `k: 16,32`. Text may not, as it can hold commas.

    A point is named after the settings that stand in lists, in the order of the settings' own declaration, so that
    its name does not depend on how many other values there are or on the order of the options.

    Raises:
        UserError: settings that can't be, an empty list, or the same combination twice; `where` opens the sentence.
    """
    axes: list[str] = []
    combinations = _section([cls], values, "", axes, where)
    configs = [build(cls, combination, where) for combination in combinations]
    if not axes:
        return [Point("", configs[0])]
    names = [_name(_flat(config.model_dump(mode="json")), axes) for config in configs]
    twice = {name.casefold() for name in names if [n.casefold() for n in names].count(name.casefold()) > 1}
    points: dict[str, Point[ConfigT]] = {}
    for name, config in zip(names, configs, strict=True):
        digest = config_digest(config)
        if digest in points:
            raise UserError(f"{where}: two combinations of the lists are the same run, {name}; leave one out")
        points[digest] = Point(f"{name}-{digest[:6]}" if name.casefold() in twice else name, config)
    return list(points.values())


def _section(
    models: Sequence[type[BaseModel]], values: Mapping[str, Any], prefix: str, axes: list[str], where: str
) -> list[dict[str, Any]]:
    """All combinations of one section; keys that stand in lists are added to `axes`."""
    choices: list[list[tuple[str, Any]]] = []
    for key, value in values.items():
        annotations = [model.model_fields[key].annotation for model in models if key in model.model_fields]
        alternatives = _alternatives(annotations, value, f"{prefix}{key}", axes, where)
        choices.append([(key, alternative) for alternative in alternatives])
    return [dict(combination) for combination in itertools.product(*choices)]


def _alternatives(annotations: Sequence[Any], value: Any, key: str, axes: list[str], where: str) -> list[Any]:
    """What one key stands for: its value, or each of its values."""
    sections = [model for annotation in annotations for model in models_in(annotation)]
    if isinstance(value, Mapping):
        return _section(sections, value, f"{key}.", axes, where) if sections else [value]
    kinds = {kind for annotation in annotations for kind in _kinds(annotation)}
    if isinstance(value, str) and "," in value and annotations and not kinds & {str, Any, *_SEQUENCES}:
        value = _apart(value, key, where)
    if not isinstance(value, list) or (kinds & {*_SEQUENCES} and not _holds_several(value)):
        return [value]
    if not value:
        raise UserError(f"{where}: {key} is an empty list, which leaves nothing to do")
    if not sections:
        axes.append(key)
        return value
    axes += _differing(value, key)
    return [
        alternative
        for item in value
        for alternative in (_section(sections, item, f"{key}.", axes, where) if isinstance(item, Mapping) else [item])
    ]


def _apart(text: str, key: str, where: str) -> list[Any]:
    if re.fullmatch(r"\d{1,3}(,\d{3})+", text):
        parts = text.replace(",", ", ")
        raise UserError(
            f"{where}: {key} = {text} may be one number or several; write {text.replace(',', '')} or [{parts}]"
        )
    return [read_scalar(part) for part in text.split(",")]


def _holds_several(value: Sequence[Any]) -> bool:
    """Whether a list stands for several values of a setting that is a list itself: `[null, [a, b]]`."""
    return any(isinstance(item, list) or item is None for item in value)


def _kinds(annotation: Any) -> Iterable[Any]:
    """The plain types that an annotation allows: `str | tuple[int, ...] | None` → str, tuple, NoneType."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [kind for argument in typing.get_args(annotation) for kind in _kinds(argument)]
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    return [origin or annotation] if origin is not Literal else [Literal]


def _differing(items: Sequence[Any], key: str) -> list[str]:
    """Dotted keys in which the sections of a list differ."""
    flats = [_flat(item, f"{key}.") if isinstance(item, Mapping) else {key: item} for item in items]
    keys = dict.fromkeys(name for flat in flats for name in flat)
    return [name for name in keys if any(flat.get(name, ...) != flats[0].get(name, ...) for flat in flats)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _name(flat: Mapping[str, Any], axes: Sequence[str]) -> str:
    parts = [_part(key, value) for key, value in flat.items() if key in axes]
    name = re.sub(r"[^A-Za-z0-9_.+=-]+", "_", "-".join(parts)).strip("._-")
    return name[:NAME_LENGTH].rstrip("._-") or "run"


def _part(key: str, value: Any) -> str:
    """`sae.k` = 16 → k16, `sae.aux.kind` = none → aux-none, `sae.preset` = topk → topk."""
    parent, _, label = key.rpartition(".")
    if label == "kind":
        label = parent.rpartition(".")[2]
        return value if value.startswith(label) else f"{label}-{value}"
    match value:
        case None:
            return f"{label}-none"
        case bool():
            return label if value else f"no-{label}"
        case int() | float():
            return f"{label}{'-' if label[-1].isdigit() else ''}{_number(value)}"
        case str():
            return value.rstrip("/").rpartition("/")[2]
        case _:
            return "+".join(map(str, value))


def _number(value: float) -> str:
    """Exactly, and as short as it goes: 10M, 200k, 0.001."""
    if isinstance(value, int) and abs(value) >= 10_000:
        for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
            if value % size == 0:
                return f"{value // size}{unit}"
    return str(value).removesuffix(".0")
