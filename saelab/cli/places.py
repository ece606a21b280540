"""Where results go when the user names no folder."""

from __future__ import annotations

import os
from pathlib import Path

from saelab.cli.arguments import Arguments
from saelab.disk import bundled


def runs_folder() -> Path:
    """The checkout's `artifacts/runs` when saelab runs from a checkout, else `saelab-runs` in the current folder."""
    return _folder("runs")


def activations_folder() -> Path:
    """The checkout's `artifacts/activations`, else `saelab-activations` in the current folder."""
    return _folder("activations")


def run_directory(arguments: Arguments, fallback: str) -> Path:
    """Directory of a run without `--out`: named after its config file, else after `fallback`."""
    return runs_folder() / (arguments.file.stem if arguments.file else fallback.replace(" × ", "-"))


def _folder(name: str) -> Path:
    if bundled("pyproject.toml").is_file():
        return Path(os.path.relpath(bundled("artifacts") / name))
    return Path(f"saelab-{name}")
