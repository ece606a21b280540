"""Verdicts on the papers' claims, from records in which the truth is planted."""

from typing import Any

from benchmarks.cells import AUXILIARIES, GRID
from benchmarks.claims import claims, table

DEAD = {"none": 40, "aux_k": 20, "aux_zipf": 20}


def records() -> list[dict[str, Any]]:
    """Mutual choice better than topk, feature choice worse, gradient undecided; aux_zipf leaves as many dead as
    aux_k but fewer underused."""
    fvu = {"topk": 0.20, "mutual-choice": 0.15, "feature-choice": 0.25}
    return [
        {
            "architecture": name, "aux": aux, "reading": "", "seed": seed,
            "fvu": fvu.get(name, 0.2) + 0.001 * seed,
            "delta_ce": fvu.get(name, 0.2) + (0.02 * (seed - 1) if name == "gradient" else 0.0),
            "kl": 0.1, "dead_in_training": 0 if "feature" in name else DEAD[aux] + seed,
            "dead": 1, "underused": 100 - 10 * AUXILIARIES.index(aux) + seed % 2,
        }
        for name in GRID
        for aux in AUXILIARIES
        for seed in range(3)
    ]  # fmt: skip


def test_planted_truths_are_found() -> None:
    verdicts = {(c.text, c.measured.partition(":")[0]): c.verdict for c in claims(records())}
    assert verdicts["mutual choice reconstructs better than topk", "fvu"] == "holds"
    assert verdicts["feature choice reconstructs better than topk", "fvu"] == "does not hold"
    assert verdicts["gradient: downstream loss closer to clean than topk", "delta_ce"] == "undecided"
    assert verdicts["aux_k leaves fewer dead latents than none", "dead_in_training"] == "holds"
    assert verdicts["aux_zipf leaves fewer dead latents than aux_k", "dead_in_training"] == "no difference"
    assert verdicts["aux_zipf leaves fewer underused latents than aux_k", "underused"] == "holds"
    assert verdicts["feature choice has no dead latents", "at most 0 dead in 9 dictionaries"] == "holds"


def test_differences_pair_dictionaries_of_the_same_seed_and_auxiliary_loss() -> None:
    found = next(c for c in claims(records()) if c.text.startswith("mutual choice"))
    # The seeds' spread is in both and cancels.
    assert found.measured == "fvu: -0.0500 [-0.0500, -0.0500], 9 pairs"


def test_one_dead_latent_is_enough() -> None:
    found = records()
    next(r for r in found if r["architecture"] == "feature-choice")["dead_in_training"] = 1
    assert claims(found)[0].verdict == "does not hold"


def test_records_of_two_architectures_give_the_claims_they_can() -> None:
    found = claims([r for r in records() if r["architecture"] in ("topk", "gradient")])
    assert {c.text.split(" ")[0] for c in found} == {"gradient:", "aux_zipf", "aux_k"}
    assert table(found).count("\n") == len(found) + 1
