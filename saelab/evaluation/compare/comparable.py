"""Nobody compares unlike with unlike: what must be equal, what is said aloud when it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from saelab.config import differences
from saelab.errors import UserError
from saelab.evaluation.compare.candidates import Candidate
from saelab.evaluation.provenance import Provenance

EQUAL: Final = {
    "model_fingerprint": "the language model",
    "corpus": "the text",
    "token_policy": "the token policy",
    "positions": "the number of positions read",
    "tokens": "the tokens that count",
    "predictions": "the predictions that count",
    "documents": "the documents",
    "dtype": "the number format of the model",
}
"""What two reports must agree in, or their numbers are of different things."""


def check(candidates: Sequence[Candidate]) -> None:
    """Refuse reports that were not made under the same conditions.

    Raises:
        UserError: naming two runs, the first condition that differs, and how to make their reports alike.
    """
    first = candidates[0]
    for other in candidates[1:]:
        for key, words in EQUAL.items():
            ours, theirs = (_value(candidate.about, key) for candidate in (first, other))
            if ours != theirs:
                raise UserError(
                    f"{first.name} and {other.name} can't be compared: {words} differs "
                    f"({_how(ours, theirs)}); {_remedy(key, candidates)}"
                )


def warnings(candidates: Sequence[Candidate]) -> Iterator[str]:
    """What does not forbid the comparison and a reader has to know."""
    first, others = candidates[0], candidates[1:]
    places = {" → ".join(candidate.place) for candidate in candidates}
    if len(places) > 1:
        yield (
            f"The dictionaries stand at different sites ({', '.join(sorted(places))}): their damage to the model's "
            "output compares, their FVU is of different activations and is not compared."
        )
    for key, words in (
        ("d_sae", "numbers of latents"),
        ("saelab_version", "versions of saelab"),
        ("device", "devices"),
    ):
        values = list(dict.fromkeys(str(getattr(candidate.about, key)) for candidate in candidates))
        if len(values) > 1:
            yield f"Different {words}: {', '.join(values)}."
    if any(c.about.settings.get("mean_tokens") != first.about.settings.get("mean_tokens") for c in others):
        yield "The mean of the mean ablation rests on different tokens: loss recovered (mean) does not compare."
    for suite in ("labels", "steering"):
        held = [c.reports[suite].about for c in candidates if suite in c.reports]
        if not alike(held):
            yield f"The {suite} reports were not made under the same conditions: their columns don't compare."


def alike(abouts: Sequence[Provenance]) -> bool:
    """Whether reports were made under the same conditions."""
    return len({about.model_dump_json(include=set(EQUAL)) for about in abouts}) <= 1


def _value(about: Provenance, key: str) -> Any:
    return about.model_dump(mode="json", include={key})[key]


def _how(ours: Any, theirs: Any) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return "; ".join(differences(ours, theirs))
    ours, theirs = (f"{value:,}" if isinstance(value, int) else str(value)[:24] for value in (ours, theirs))
    return f"{ours} → {theirs}"


def _remedy(key: str, candidates: Sequence[Candidate]) -> str:
    if key == "model_fingerprint":
        return "no text makes dictionaries of different models alike"
    if key == "token_policy":
        return "a dictionary keeps the policy that it was trained with, so train them with the same one"
    runs = " ".join(str(candidate.run) for candidate in candidates)
    return f"`saelab evaluate {runs} --overwrite` measures all in one pass; --corpus, --tokens, --dtype say on what"
