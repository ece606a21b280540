"""Settings explained: the end of a stage's `--help`, and `saelab settings STAGE` with every key in full."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from cyclopts import App

from saelab.cli.source import Setting, settings_of
from saelab.errors import UserError

STAGES = {
    "harvest": "saelab.activations.config:HarvestConfig",
    "train": "saelab.training.config:TrainConfig",
    "evaluate": "saelab.evaluation.config:EvaluateConfig",
    "compare": "saelab.evaluation.compare.config:CompareConfig",
    "calibrate": "saelab.evaluation.config:CalibrateConfig",
    "ioi": "saelab.evaluation.ioi.config:IoiConfig",
    "index": "saelab.features.config:IndexConfig",
    "steer": "saelab.steering.config:SteerConfig",
}
"""The config class of every stage that takes settings."""

BESIDE = {"train": ("parallel", "saelab.training.parallel:ParallelConfig")}
"""What a stage takes that is no setting of its result: the section's key and its config class."""

FEW = 14  # up to this many settings a help page with few options explains all of them and still fits a screen

app = App(
    name="settings",
    help_epilogue="""Examples:
  saelab settings train                  every setting of `saelab train`
  saelab settings train corpus           those of its corpus""",
)


@app.default
def settings(stage: str, section: str = "") -> None:
    """Explain every setting of a command.

    Parameters
    ----------
    stage
        The command: train, harvest, evaluate, calibrate, ioi, index, steer.
    section
        Only the settings below this key.
    """
    if stage not in STAGES:
        raise UserError(f"{stage!r} takes no settings; these do: {', '.join(STAGES)}")
    found = [s for s in _taken_by(stage) if f"{s.key}.".startswith(f"{section}." if section else "")]
    if not found:
        raise UserError(f"`saelab {stage}` has no setting {section!r}; `saelab settings {stage}` lists all")
    print("\n".join(explain(found)))


def epilogue(stage: str, examples: str, useful: Sequence[str] = ()) -> str:
    """The end of a stage's help: examples, the `useful` settings explained, then the names of the others."""
    found = {s.key: s for s in _taken_by(stage)}
    lines = ["Examples:", examples, ""]
    if not useful and len(found) <= FEW:
        lines += ["Settings, as --key value or in a YAML file, with defaults:", *explain(list(found.values()))]
    else:
        lines += [
            "Settings, as --key value or in a YAML file, with defaults:",
            *explain([_in_brief(found[key]) for key in useful]),
            "",
            f"The others (`saelab settings {stage}` explains all):",
            *_overview([setting for key, setting in found.items() if key not in useful]),
        ]
    return "\n".join(lines)


def _taken_by(stage: str) -> list[Setting]:
    found = settings_of(STAGES[stage])
    if stage in BESIDE:
        section, path = BESIDE[stage]
        found += [replace(setting, key=f"{section}.{setting.key}") for setting in settings_of(path)]
    return found


def explain(found: Sequence[Setting]) -> list[str]:
    """A line or more each: key, default, choices and help."""
    keys = max(len(s.key) for s in found) + 1
    defaults = min(max(len(shown_default(s)) for s in found), 22) + 1
    lines: list[str] = []
    for setting in found:
        column = f"  {setting.key:<{keys}}{shown_default(setting):<{defaults - 1}} "
        lines += _fill(column, 2 + keys + defaults, _teach(setting))
    return lines


def _overview(found: Sequence[Setting]) -> list[str]:
    """Sections of keys, one paragraph each; a section stands before those inside it."""
    sections: dict[str, list[str]] = {"": []}
    for setting in found:
        section, _, name = setting.key.rpartition(".")
        for parent in accumulate(section.split("."), "{}.{}".format):
            sections.setdefault(parent, [])
        sections[section].append(name)
    lines: list[str] = []
    for section, names in sections.items():
        lines += _fill(f"  {section}: " if section else "  ", 6, ", ".join(names)) if names else []
    return lines


def _fill(column: str, indent: int, text: str) -> list[str]:
    """`column`, then `text` wrapped with a hanging indent."""
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.wrap(
        text or " ", width, initial_indent=column, subsequent_indent=" " * indent, break_on_hyphens=False
    ) or [column.rstrip()]


def shown_default(setting: Setting) -> str:
    """A default as YAML would have it: null, true, 10M, [a, b]."""
    source = setting.default
    if source.isdecimal() and int(source) >= 10_000:
        units = (("M", 10**6), ("k", 10**3))
        return next((f"{int(source) // size}{unit}" for unit, size in units if int(source) % size == 0), source)
    if source.startswith("("):
        source = f"[{source[1:-1].rstrip(',')}]"
    plain = {"": "(required)", "None": "null", "True": "true", "False": "false"}
    return plain.get(source, source.replace("'", "").strip('"'))


def _teach(setting: Setting) -> str:
    """The help, behind the choices unless it names them itself."""
    if not _is_choice(setting) or all(choice in setting.help for choice in setting.type.split(" | ")):
        return setting.help
    return f"{setting.type}; {setting.help}".strip(" ;")


def _in_brief(setting: Setting) -> Setting:
    """With the first part of its help, up to the first stop; of a choice, only what there is to choose from."""
    brief = re.split(r"[.;:](?= |$)", setting.help)[0]
    if brief.count("(") != brief.count(")"):
        brief = brief.rpartition("(")[0].rstrip(" ,")
    return replace(setting, help="" if _is_choice(setting) else brief)


def _is_choice(setting: Setting) -> bool:
    choices = setting.type.split(" | ")
    return len(choices) > 1 and "None" not in choices
