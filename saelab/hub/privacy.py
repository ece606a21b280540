"""What must not leave this machine: paths of its folders, and tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from saelab.errors import UserError

_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
_TEXT = {".json", ".yaml", ".md", ".svg"}


def without_machine_paths(value: Any, key: str = "") -> tuple[Any, list[str]]:
    """Plain values with each path of this machine cut down to its last part, and the keys where that was done.

    A path is of this machine when it is absolute, begins in the home folder, or climbs out of the working folder.
    """
    if isinstance(value, dict):
        parts = [without_machine_paths(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()]
        kept: Any = dict(zip(value, (inner for inner, _ in parts), strict=True))
    elif isinstance(value, list):
        parts = [without_machine_paths(inner, key) for inner in value]
        kept = [inner for inner, _ in parts]
    elif isinstance(value, str) and is_machine_path(value):
        return _last_part(value), [key]
    else:
        return value, []
    return kept, list(dict.fromkeys(cut for _, found in parts for cut in found))


def is_machine_path(text: str) -> bool:
    """Whether `text` is a path that means nothing on another machine."""
    if "\n" in text or "://" in text:
        return False
    _, path = _split_kind(text)
    return path.startswith(("/", "~", "../")) or ("\\" in path and PureWindowsPath(path).drive != "")


def _last_part(text: str) -> str:
    kind, path = _split_kind(text)
    return kind + ((PureWindowsPath(path) if "\\" in path else PurePosixPath(path)).name or "local")


def _split_kind(text: str) -> tuple[str, str]:
    """`hf:/data/x` → `hf:`, `/data/x`: a word before the path that says what the path is."""
    match = re.match(r"[a-z]{2,}:", text)
    return (match[0], text[match.end() :]) if match else ("", text)


def require_no_token(folder: Path, tokens: Sequence[str | None]) -> None:
    """Refuse to publish a token of the Hub that stands in a text file of `folder`.

    Raises:
        UserError: naming the file, never the token.
    """
    known = [token.encode() for token in tokens if token]
    for file in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):  # the card quotes what lies deeper
        if file.suffix in _TEXT and file.is_file():
            content = file.read_bytes()
            if _TOKEN.search(content) or any(token in content for token in known):
                raise UserError(
                    f"{file.relative_to(folder)} would hold a token of the Hub; take it out of the run first"
                )
