"""GPT-2 small: the papers' numbers beside ours. Source: METHODS §5, "Reported [P]".

The follow-up's numbers are read off a plot (± 0.03); what counts as reproduced is our own and stands with each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from saelab.evaluation.ioi.families import REFERENCE
from saelab.evaluation.ioi.report import BehaviourPart, ControlPart, PublishedPart, SectionPart

EXCHANGE: Final = 2  # latents that one exchange edits: one is removed, one added (our reading)


class _Edit(NamedTuple):
    section: str
    attribute: str
    topk: float
    supervised: float


FOLLOW_UP: Final = (
    _Edit("(B)NM z", "IO", 0.95, 0.96),
    _Edit("(B)NM q", "Pos", 0.89, 0.85),
    _Edit("S-I z", "Pos", 0.89, 0.80),
    _Edit("S-I v", "Pos", 0.87, 0.89),
    _Edit("Ind+DT z", "Pos", 0.93, 0.90),
)
"""Edit accuracy after two exchanges; 512 latents, TopK k = 3."""
_READ_OFF: Final = 0.03  # error of the numbers read off the plot …
_SEEDS: Final = 0.05  # … and what another seed or draw of prompts may change


def compare(behaviour: Sequence[BehaviourPart], sections: Sequence[SectionPart]) -> Iterator[PublishedPart]:
    """The published numbers, each with ours and a verdict."""
    all_together = behaviour[0]
    yield _row("accuracy", 0.91, all_together.accuracy, 0.88, 0.94)
    yield _row("logit difference", 3.3, all_together.logit_difference, 2.8, 3.8)
    edits = [_accuracy(control) for control in _controls(sections, REFERENCE)]
    yield _row("supervised edits, the worst of all", 0.80, min(filter(None, edits), default=None), 0.80, None)
    for edit in FOLLOW_UP:
        for name, value in (("task topk", edit.topk), (REFERENCE, edit.supervised)):
            chosen = [section for section in sections if section.name == edit.section]
            found = [c for c in _controls(chosen, name) if c.attribute == edit.attribute and c.way != "guided"]
            least = value - _READ_OFF - _SEEDS
            what = f"{edit.attribute} in {edit.section}, {name}, 2 exchanges"
            yield _row(what, value, _accuracy(found[0]) if found else None, least, None)


def _controls(sections: Sequence[SectionPart], name: str) -> list[ControlPart]:
    return [
        control
        for section in sections
        for dictionary in section.dictionaries
        if dictionary.name == name or dictionary.name.startswith(f"{name},")
        for control in dictionary.control
    ]


def _accuracy(control: ControlPart) -> float | None:
    """With two exchanges, or the most that were measured."""
    budget = [edit for edit in control.edits if edit.k <= 2 * EXCHANGE]
    return max(budget, key=lambda edit: edit.k).accuracy.value if budget else None


def _row(what: str, published: float, ours: float | None, low: float, high: float | None) -> PublishedPart:
    reproduced = ours is not None and ours >= low and (high is None or ours <= high)
    verdict = "not measured" if ours is None else "pass" if reproduced else "fail"
    return PublishedPart(what=what, published=published, low=low, high=high, ours=ours, verdict=verdict)
