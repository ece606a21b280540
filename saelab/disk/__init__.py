"""The only place that knows file names and how bytes reach the disk: atomic, checked, with room made sure of."""

from saelab.disk.files import (
    append_jsonl,
    disk_errors,
    exclusive,
    is_whole,
    move,
    read_json,
    read_jsonl,
    require_free_space,
    sha256,
    staged_directory,
    write_json,
    write_text,
)
from saelab.disk.layout import ActivationPaths, RunPaths, bundled

__all__ = [
    "ActivationPaths",
    "RunPaths",
    "append_jsonl",
    "bundled",
    "disk_errors",
    "exclusive",
    "is_whole",
    "move",
    "read_json",
    "read_jsonl",
    "require_free_space",
    "sha256",
    "staged_directory",
    "write_json",
    "write_text",
]
