"""The benchmark of training steps: turns, ratios and tables by hand; two of our cases measured, tiny."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import step
from benchmarks.steps import rounds
from benchmarks.steps.cases import OURS, PEERS, REFERENCE, all_cases, default_cases, floors
from benchmarks.steps.report import COMPARISONS, PRODUCT, Comparison, Ratio, compared, ratios, rewrite, table, verdict
from benchmarks.steps.rounds import WorkerFailedError, measure, peaks, steps_of_a_turn, summary
from benchmarks.steps.size import Size, read_activations, write_activations

TINY = Size(d_sae=64, k=4, batch=32, d_in=16)


def clocks(*ms: float) -> list[dict[str, float]]:
    return [{"ms": value, "cpu_ms": 2 * value, "faults": 0} for value in ms]


def row(*rounds_ms: float | None) -> dict[str, Any]:
    return summary(TINY, [[] if ms is None else clocks(ms) for ms in rounds_ms])


def report(**cases: dict[str, Any]) -> dict[str, Any]:
    run = {"threads": 1, "rounds": 2, "others_share": 0.25, "cases": cases}
    return {"machine": "a machine", "versions": {"torch": "2"}, "sizes": {str(TINY): run}}


def test_a_size_is_read_as_it_is_written() -> None:
    assert Size.read("24576,32,4096") == Size(24576, 32, 4096, 768)
    assert [str(Size.read(text)) for text in ("8,2,4", "8,2,4,2304")] == ["8,2,4", "8,2,4,2304"]


def test_activations_have_the_norm_that_training_wants(tmp_path: Path) -> None:
    size = Size(d_sae=64, k=4, batch=512, d_in=96)
    write_activations(tmp_path / "a", size)
    x, gradient = read_activations(tmp_path / "a", "cpu")
    assert x.shape == gradient.shape == (4, 512, 96)
    # 32 directions of strength 3 · U(1, 2): 32 · 9 · 7/3 = 672, and noise of 0.09 · 96, all of it · 96 / 768.
    assert float(x.square().sum(2).mean()) == pytest.approx((672 + 8.64) * 96 / 768, rel=0.02)


def test_a_turn_is_a_second_and_slow_cases_sit_out_every_other_round() -> None:
    assert steps_of_a_turn([clocks(900, 300), clocks(400)], 0) == 3
    assert [steps_of_a_turn([clocks(1)], 1), steps_of_a_turn([clocks(1500)], 1)] == [rounds.MOST_STEPS, 1]
    assert [steps_of_a_turn([clocks(5000)], number) for number in range(4)] == [1, 0, 1, 0]


def test_summary_by_hand() -> None:
    found = summary(TINY, [clocks(1, 2, 9), [], clocks(4, 6)])
    assert (found["ms"], found["fastest_ms"], found["middle_half_ms"], found["steps"]) == (4, 1, [2, 6], 5)
    assert found["rounds_ms"] == [2, None, 5]
    assert (found["cpu_ms"], found["tokens_per_s"]) == (8, 1000 * 32 / 4)
    assert summary(TINY, [clocks(3)])["middle_half_ms"] == [3, 3]


def test_ratios_are_taken_within_rounds() -> None:
    """The machine is three times as slow in the second round, and one of the two sits out the third."""
    assert Ratio.of(row(10, 60, 5), row(5, 20, None)) == Ratio(2.5, 2, 3)


def test_the_faster_product_is_the_floor() -> None:
    rows = {"product, MKL": row(4), "product, oneDNN": row(2), "topk": row(3)}
    assert compared(rows, Comparison(PRODUCT, "topk")) == Ratio(1.5, 1.5, 1.5)
    assert compared(rows, Comparison("topk", "SAELens")) is None


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        (Comparison("a", "b", at_least=2.5), "met"), (Comparison("a", "b", at_least=2.6), "missed"),
        (Comparison("a", "b", at_most=2.5), "met"), (Comparison("a", "b", at_most=2.4), "missed"),
        (Comparison("a", "b"), ""),
    ],
)  # fmt: skip
def test_verdicts(comparison: Comparison, said: str) -> None:
    assert verdict(comparison, Ratio(2.5, 0, 9)) == said


def test_every_comparison_is_of_cases_that_exist() -> None:
    known = {*OURS, *PEERS, PRODUCT}
    assert all({c.fast, c.slow} <= known for c in COMPARISONS)
    assert not {"topk, int8 scoring", "sparsify, same settings"} & {*all_cases("cuda")}
    assert not {*floors("cpu")} & {*floors("cuda")}


def test_a_size_that_is_measured_again_keeps_the_memory_that_was_measured() -> None:
    before, now = report(topk=row(9) | {"peak_mb": 5.0}, gone=row(1)), report(topk=row(1))
    before["sizes"]["other"] = {"cases": {}}
    found = step.merged(before, now)["sizes"]
    assert list(found) == [str(TINY), "other"]
    assert found[str(TINY)]["cases"] == {"topk": row(1) | {"peak_mb": 5.0}}


def test_a_documents_tables_are_rewritten_and_nothing_else(tmp_path: Path) -> None:
    blocks = [f"<!-- step:{name} -->\nold\n<!-- /step -->" for name in ("conditions", "times", "ratios")]
    (document := tmp_path / "d.md").write_text("\n\n".join(["# Before", *blocks, "After"]), encoding="utf-8")
    found = report(**{"product, MKL": row(4), "topk": row(6), REFERENCE: row(60)})
    for _ in range(2):
        rewrite(document, found)
    text = document.read_text(encoding="utf-8")
    assert text.startswith(
        "# Before\n\n<!-- step:conditions -->\na machine; torch 2. By size: 1 threads, 2 rounds; other"
    )
    assert "took 25 % of the processors. **The machine was busy" in text
    assert text.endswith("\n<!-- /step -->\n\nAfter")
    assert text.count("old") == 0
    assert ratios(found) in text
    assert "10.00 (10.00–10.00)" in ratios(found)
    assert re.search(r"\| topk +\| +6 \(1\.50\) \|", text)


def test_a_document_without_the_places_is_refused(tmp_path: Path) -> None:
    (document := tmp_path / "d.md").write_text("nothing")
    with pytest.raises(SystemExit, match="no place for conditions"):
        rewrite(document, report(**{"product, MKL": row(4)}))


def test_measured_in_turns() -> None:
    run = measure(TINY, ["topk", "topk, int8 scoring", REFERENCE], "cpu", repeats=2, profile=True)
    assert list(run["cases"]) == [*floors("cpu"), "topk", "topk, int8 scoring", REFERENCE]
    for found in run["cases"].values():
        assert len(found["rounds_ms"]) == 2
        assert found["steps"] >= 2
        assert min(found["ms"], found["cpu_ms"]) > 0
    assert run["cases"]["topk, int8 scoring"]["wrong_picks"] == 0
    assert run["cases"]["topk"]["stages_ms"]["encoder product"] > 0
    assert "topk, int8 scoring: " in table(str(TINY), run)


def test_peak_memory_grows_with_the_dictionary() -> None:
    found = [peaks(Size(d_sae, 4, 32, 16), ["topk"], "cpu")["topk"] for d_sae in (64, 2**18)]
    assert found[1] - found[0] > 6 * 2**18 * 16 * 4 / 1e6  # two matrices and two moments of each


def test_a_worker_that_fails_says_why() -> None:
    with pytest.raises(WorkerFailedError, match=r"(?s)topk: exit code 1.*d_sae = 2"):
        measure(Size(d_sae=2, k=4, batch=32, d_in=16), ["topk"], "cpu", repeats=1, profile=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--cases", "nobody"], "unknown nobody; cases are: topk;"), (["--cases", "SAELens"], "make peers")],
)
def test_cases_that_cannot_be_measured(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step, "is_installed", lambda case: False)
    monkeypatch.setattr("sys.argv", ["step.py", *words])
    with pytest.raises(SystemExit) as stop:
        step.main()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_by_default_all_of_ours_are_measured() -> None:
    assert {*OURS} <= {*default_cases("cpu")}
