"""The IOI suite divided among processes: the dictionaries are tested in turns, and the report is the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from saelab.evaluation.ioi.config import JudgeConfig
from saelab.evaluation.ioi.run import judge
from saelab.models import LanguageModel
from saelab.ranks import Ranks
from tests.evaluation.runs import make_run
from tests.forks import Group

FEW = {
    "fit_prompts": 240, "test_prompts": 24, "patched_prompts": 12, "search_prompts": 6, "threshold": 0.1,
    "budgets": [2], "resamples": 10,
}  # fmt: skip


def work(ranks: Ranks, run: Path) -> str:
    reports = judge(JudgeConfig.model_validate({**FEW, "runs": [run], "overwrite": True}), ranks=ranks)
    return json.dumps([of_numbers(report.model_dump(mode="json")) for report in reports])


def of_numbers(report: dict[str, Any]) -> dict[str, Any]:
    times = dict.fromkeys(("seconds", "created"))
    return {**report, "about": {**report["about"], **times}}


@pytest.mark.distributed
def test_the_same_report_as_one_process(tmp_path: Path, demo: LanguageModel) -> None:
    run = make_run(tmp_path / "run", demo, "blocks.2.resid_post")
    expected = work(Ranks(), run)
    for size in (2, 3):
        (run / "evaluation" / "ioi.json").unlink()
        ends = Group(tmp_path / f"ranks {size}", size, work, run).wait()
        assert [end for end, _ in ends] == ["done"] * size
        assert {said for _, said in ends} == {expected}
        written = json.loads((run / "evaluation" / "ioi.json").read_text())
        assert of_numbers(written) == json.loads(expected)[0]
