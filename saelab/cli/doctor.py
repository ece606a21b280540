"""`saelab doctor`: what this machine offers, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from saelab.disk import bundled

app = App(
    name="doctor",
    help_epilogue="""Examples:
  saelab doctor                  a table
  saelab doctor --json           for scripts; the exit code is 0 either way""",
)

HUB_TIMEOUT_S = 3.0
DEMO_BYTES = 3_000_000_000  # the demo's peak memory, rounded up
DEMO_DISK = 1_000_000_000
PACKAGES = [
    "torch",
    "transformers",
    "transformer-lens",
    "datasets",
    "huggingface-hub",
    "pyarrow",
    "duckdb",
    "streamlit",
]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what to do when that is not good (empty when it is)."""

    name: str
    value: str
    advice: str = ""


@app.default
def doctor(*, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Say what this machine offers, what is missing, and what to do about it.

    Parameters
    ----------
    as_json
        Print a JSON list instead of a table.
    """
    findings = list(examine())
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        _print_table(findings)


def examine() -> Iterator[Finding]:
    """Everything worth knowing before the first run, in reading order."""
    yield Finding("saelab", f"{_version('saelab')} in {bundled('').resolve()}")
    yield Finding("python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for package in PACKAGES:
        version = _version(package)
        yield Finding(package, version or "missing", "" if version else f"pip install {package}")
    yield from _compute()
    yield from _room()
    yield _hub()
    yield from _bundle()


def _compute() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("threads", f"{torch.get_num_threads()} used by torch, {cores} cores available")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(f"cuda:{index}", f"{properties.name}, {_gb(properties.total_memory)}")
    elif torch.backends.mps.is_available():
        yield Finding("mps", "available")
    else:
        built = torch.version.cuda is not None
        advice = "torch was built with CUDA but finds no driver" if built else ""
        yield Finding("device", "cpu", advice)

    yield _kernels()


def _kernels() -> Finding:
    import torch

    from saelab.kernels.backend import choose
    from saelab.kernels.triton.availability import obstacle

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, missing = choose(device=device).name, obstacle(device)
    if not missing:
        return Finding("kernels", f"{name} backend; triton {_version('triton')}")
    advice = "pip install triton" if device.type == "cuda" and not _version("triton") else ""
    return Finding("kernels", f"{name} backend; no triton: {missing}", advice)


def _room() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    low = "" if memory.available > DEMO_BYTES else f"the demo wants {_gb(DEMO_BYTES)}; close something"
    yield Finding("memory", f"{_gb(memory.available)} of {_gb(memory.total)} free", low)
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    full = "" if free > DEMO_DISK else f"the demo wants {_gb(DEMO_DISK)}; make room or work in another folder"
    yield Finding("disk", f"{_gb(free)} free in {here}", full)
    if not os.access(here, os.W_OK):
        yield Finding("folder", f"{here} can't be written", "work in another folder, or name one with --out")


def _hub() -> Finding:
    from huggingface_hub import constants
    from huggingface_hub.utils import httpx

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "not asked: HF_HUB_OFFLINE is set; the bundled model and local folders work")
    try:
        httpx.head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S, follow_redirects=True)
    except httpx.HTTPError as error:
        return Finding("hub", f"not reachable ({type(error).__name__}); the bundled model and local folders work")
    return Finding("hub", f"reachable, {'signed in' if _has_token() else 'not signed in (fine for public models)'}")


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _bundle() -> Iterator[Finding]:
    for name, use in (
        ("artifacts/demo-model", "the demo model"),
        ("artifacts/demo-corpus.jsonl.gz", "the demo corpus"),
        ("configs", "the bundled configs"),
        ("app", "the app"),
    ):
        if not bundled(name).exists():
            yield Finding(use, f"{name} is missing", "this copy of saelab is not complete; install it again")
    if all(bundled(name).exists() for name in ("artifacts/demo-model", "configs", "app")):
        yield Finding("demo", "ready: `saelab demo`")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _print_table(findings: list[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        advice = f"\n[yellow]→ {finding.advice}[/]" if finding.advice else ""
        table.add_row(finding.name, f"{finding.value}{advice}")
    console = Console()
    console.print(table)
    troubles = sum(bool(finding.advice) for finding in findings)
    console.print("Nothing is missing." if not troubles else f"{troubles} thing(s) to look at, marked →.")
