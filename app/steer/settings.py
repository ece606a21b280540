"""The settings of the Steer page: read from the address and checked, and written to it from a file.

They are those of `saelab steer` under the same names, so that what the page does, the command does too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.prompt.prompts import LONGEST
from app.workspace import Run
from saelab.config import build
from saelab.errors import UserError
from saelab.steering.config import SteerConfig

LATENTS = "latents"  # in the address; `latent` there is the one of the Latent page
LISTS = {LATENTS: "latent", "strength": "strength", "ratio": "ratio"}
PLAIN = ("mode", "method", "positions", "prompt", "max_new_tokens", "samples", "temperature", "top_k", "top_p", "seed")
LARGEST = {"max_new_tokens": 256, "samples": 6, "strength": 6, "latent": 32}  # that the page does while one waits


def from_address(run: Run, query: Mapping[str, str]) -> SteerConfig:
    """The settings that the address asks for, defaults for the rest.

    Raises:
        UserError: one that can't be, named with what would be right.
    """
    settings: dict[str, Any] = {"run": run.paths.root, "latent": []}
    for name, field in LISTS.items():
        if query.get(name, "").strip():
            settings[field] = _numbers(name, query[name], int if field == "latent" else float)
    settings |= {
        name: query[name] for name in PLAIN if query.get(name, "").strip() or (name == "prompt" and name in query)
    }
    if not settings["latent"]:
        raise UserError("latents is empty; name one, or several with commas between: 12, 40")
    config = build(SteerConfig, settings, "Steering")
    if len(config.prompt) > LONGEST:
        raise UserError(f"prompt has more than {LONGEST} characters, the most of this page; `saelab steer` takes any")
    for field, largest in LARGEST.items():
        value = getattr(config, field)
        if (value if isinstance(value, int) else len(value)) > largest:
            raise UserError(f"{field} is more than {largest}, the most of this page; `saelab steer` takes any number")
    return config


def _numbers(name: str, text: str, kind: type[int] | type[float]) -> list[Any]:
    try:
        return [kind(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{name} {text[:40]!r} can't be read; write {what} with commas between") from None


def to_address(config: SteerConfig) -> dict[str, str]:
    """What the address says of settings; defaults are left out."""
    given = config.model_dump(mode="json", exclude_defaults=True)
    lists = {name: ", ".join(map(_shortly, given[field])) for name, field in LISTS.items() if field in given}
    return lists | {name: str(given[name]) for name in PLAIN if name in given}


def _shortly(value: float) -> str:
    """Without ".0", but with every digit that counts."""
    return short if float(short := f"{value:g}") == value else repr(value)


def as_json(config: SteerConfig) -> str:
    """A file for `saelab steer`, and for this page again."""
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def from_json(content: bytes) -> SteerConfig:
    """Settings from a file that this page or `saelab steer` wrote.

    Raises:
        UserError: it is no such file.
    """
    try:
        settings = json.loads(content)
    except ValueError:  # of the encoding too
        raise UserError("the file is not JSON; choose one that was saved here or written for `saelab steer`") from None
    if not isinstance(settings, dict):
        raise UserError("the file holds no settings; choose one that was saved here or written for `saelab steer`")
    return build(SteerConfig, settings, "the file")


def as_python(config: SteerConfig) -> str:
    """Lines that write the same texts; a run below the folder that the app was started in is named from there."""
    here = Path.cwd()
    given = config.model_dump(mode="json", exclude_defaults=True)
    if config.run.is_relative_to(here):
        given["run"] = str(config.run.relative_to(here))
    arguments = "".join(f"    {name}={value!r},\n" for name, value in given.items())
    return (
        "from saelab.steering import SteerConfig\n"
        "from saelab.steering.steer import steer\n\n"
        f"config = SteerConfig(\n{arguments})\n"
        "for written in steer(config):\n"
        '    print(written.strength if written.edited else "as it is", written.seed, written.text)\n'
    )
