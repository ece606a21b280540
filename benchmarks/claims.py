"""The papers' claims (METHODS §2), each held against the grid's records: measured difference and verdict.

A record is one dictionary: its `architecture`, `aux`, `seed`, and its numbers by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.tables import Difference, markdown, paired

Record = dict[str, Any]
BUDGETED = ("topk", "mutual-choice", "gradient", "gradient × mutual")  # feature choice lets no latent die to compare


@dataclass(frozen=True)
class Claim:
    """What is said, what was measured, and whether it holds: the 95 % interval of the difference excludes 0."""

    text: str
    measured: str
    verdict: str


def claims(records: Sequence[Record]) -> list[Claim]:
    """All claims that these records can say something on."""
    # A latent that aux_k saves from silence is often underused next: only the sum of both says whether that helped.
    records = [
        {**r, "starved": None if None in (r["dead"], r["underused"]) else r["dead"] + r["underused"]} for r in records
    ]
    return [*_no_dead(records), *_architectures(records), *_auxiliaries(records)]


def table(found: Sequence[Claim]) -> str:
    """As markdown."""
    return markdown(["claim", "measured", "verdict"], [[c.text, c.measured, c.verdict] for c in found])


def between_architectures(records: Sequence[Record], ours: str, theirs: str, name: str) -> Difference | None:
    """`ours - theirs` of one number, paired by auxiliary loss and seed."""

    def of(architecture: str) -> dict[tuple, float]:
        return {
            (r["aux"], r["seed"]): r[name] for r in records if r["architecture"] == architecture and r[name] is not None
        }

    return paired(of(ours), of(theirs))


def between_auxiliaries(records: Sequence[Record], ours: str, theirs: str, name: str) -> Difference | None:
    """`ours - theirs` of one number, paired by architecture and seed, over `BUDGETED` architectures."""

    def of(aux: str) -> dict[tuple, float]:
        return {
            (r["architecture"], r["seed"]): r[name]
            for r in records
            if r["aux"] == aux and r["architecture"] in BUDGETED and r[name] is not None
        }

    return paired(of(ours), of(theirs))


def _no_dead(records: Sequence[Record]) -> Iterator[Claim]:
    ours = [record["dead_in_training"] for record in records if record["architecture"] == "feature-choice"]
    if ours:
        found = f"at most {max(ours)} dead in {len(ours)} dictionaries"
        yield Claim("feature choice has no dead latents", found, "holds" if max(ours) == 0 else "does not hold")


def _architectures(records: Sequence[Record]) -> Iterator[Claim]:
    said = (
        ("mutual choice reconstructs better than topk", "mutual-choice", "topk", ("fvu", "delta_ce")),
        ("feature choice reconstructs better than topk", "feature-choice", "topk", ("fvu", "delta_ce")),
        ("gradient: downstream loss closer to clean than topk", "gradient", "topk", ("delta_ce", "kl")),
        ("(ours) the same of gradient × mutual and mutual choice", "gradient × mutual", "mutual-choice", ("delta_ce",)),
        ("(ours) the same of gradient × feature and feature choice", "gradient × feature", "feature-choice",
         ("delta_ce",)),
    )  # fmt: skip
    for text, ours, theirs, names in said:
        for name in names:
            yield from _claim(text, name, between_architectures(records, ours, theirs, name), 4)


def _auxiliaries(records: Sequence[Record]) -> Iterator[Claim]:
    for ours, theirs in (("aux_zipf", "aux_k"), ("aux_k", "none")):
        for name in ("dead_in_training", "dead", "underused", "starved"):
            word = {"underused": "underused", "starved": "silent or underused"}.get(name, "dead")
            difference = between_auxiliaries(records, ours, theirs, name)
            yield from _claim(f"{ours} leaves fewer {word} latents than {theirs}", name, difference, 1)


def _claim(text: str, name: str, difference: Difference | None, digits: int) -> Iterator[Claim]:
    if difference is not None:
        yield Claim(text, f"{name}: {difference.text(digits)}", difference.verdict())
