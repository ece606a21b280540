"""Build hook: what `saelab.disk.bundled` finds in a wheel, where no checkout lies around the package.

A hook rather than a force-include table, because an editable install must not copy these folders:
there `bundled` finds the checkout's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLE = ("app", "configs", "artifacts/demo-model", "artifacts/demo-corpus.jsonl.gz")
EXTENSIONS_LEFT_OUT = {".pyc"}


class BundleHook(BuildHookInterface):
    """Places the files of `BUNDLE` under `saelab/_bundle/` in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for name in BUNDLE:
            source = Path(self.root, name)
            if not source.exists():
                raise FileNotFoundError(f"the wheel needs {name}, which is not in {self.root}")
            for file in [source] if source.is_file() else sorted(source.rglob("*")):
                if file.is_file() and file.suffix not in EXTENSIONS_LEFT_OUT:
                    relative = file.relative_to(self.root)
                    build_data["force_include"][str(file)] = f"saelab/_bundle/{relative.as_posix()}"
