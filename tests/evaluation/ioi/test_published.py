"""The verdicts on numbers that are set by hand."""

from saelab.evaluation.ioi.published import FOLLOW_UP, compare
from saelab.evaluation.ioi.report import (
    BehaviourPart,
    ControlPart,
    DictionaryPart,
    EditPart,
    Measured,
    SectionPart,
    Way,
)


def measured(value: float) -> Measured:
    return Measured(value=value, low=value, high=value)


def control(attribute: str, way: Way, by_budget: dict[int, float]) -> ControlPart:
    edits = [
        EditPart(
            k=k, accuracy=measured(value), normalised=measured(0), relative=None, magnitude=measured(0)
        )
        for k, value in by_budget.items()
    ]  # fmt: skip
    return ControlPart(attribute=attribute, way=way, edits=edits)  # type: ignore[arg-type]


def dictionary(name: str, *controls: ControlPart) -> DictionaryPart:
    return DictionaryPart(
        name=name, kind="task", sufficiency=measured(1), necessity=measured(1), control=list(controls), above=[],
        nodes=[],
    )  # fmt: skip


def verdicts(accuracy: float, *sections: SectionPart) -> dict[str, str]:
    all_together = BehaviourPart(
        names="train", template=None, pattern=None, n=10, accuracy=accuracy, prefers_io=1, logit_difference=3.4
    )
    return {row.what: row.verdict for row in compare([all_together], sections)}


def section(*dictionaries: DictionaryPart) -> SectionPart:
    return SectionPart(name="(B)NM z", nodes=[], ablated=0, attributes=[], dictionaries=list(dictionaries))


def test_nothing_but_the_answers_was_measured() -> None:
    found = verdicts(0.97)
    assert found.pop("accuracy") == "fail"  # better than published is not the published model either
    assert found.pop("logit difference") == "pass"
    assert set(found.values()) == {"not measured"}
    assert len(found) == 1 + 2 * len(FOLLOW_UP)


def test_edits_are_read_at_two_exchanges() -> None:
    found = verdicts(
        0.91,
        section(
            dictionary("supervised MSE", control("IO", "supervised", {1: 0.1, 2: 0.9, 4: 0.9})),
            dictionary(
                "task topk, 512 latents, k = 3",
                control("IO", "agnostic", {1: 0.2, 2: 0.5, 4: 0.86, 6: 0.99}),
                control("IO", "guided", {4: 0.99}),
            ),
        ),
    )
    assert found["accuracy"] == "pass"
    assert found["supervised edits, the worst of all"] == "pass"
    assert found["IO in (B)NM z, supervised MSE, 2 exchanges"] == "pass"  # 0.9 ≥ 0.96 - 0.08
    assert found["IO in (B)NM z, task topk, 2 exchanges"] == "fail"  # 0.86 < 0.95 - 0.08


def test_one_bad_supervised_edit_fails() -> None:
    both = control("IO", "supervised", {2: 0.95}), control("S", "supervised", {2: 0.79})
    assert verdicts(0.9, section(dictionary("supervised MSE", *both)))["supervised edits, the worst of all"] == "fail"
