"""The Evaluations page: reports of several runs side by side, and the judgement against the truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html import escape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.evaluations.page import FIRST, first_in_line
from app.workspace import open_workspace
from saelab.evaluation.report import FidelityMetrics
from saelab.evaluation.together.report import OutputMetrics, TogetherReport
from tests.app.synthetic import Shape, write_run
from tests.app.synthetic_ioi import ioi_report

OpenPage = Callable[..., AppTest]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs `a` and `b` with reports, `c` with a truncated one, `d` without; and what `saelab ioi` leaves behind."""
    for name in "abcd":
        write_run(tmp_path / name, Shape(d_sae=16, n_rows=20), evaluated=name != "d", indexed=False)
    (tmp_path / "c" / "evaluation" / "fidelity.json").write_text('{"schema_version": 1, "su')
    (tmp_path / "ioi-demo").mkdir()
    ioi_report().save(tmp_path / "ioi-demo" / "ioi.json")
    return tmp_path


@pytest.fixture
def evaluations(open_page: OpenPage, folder: Path) -> OpenPage:
    """`evaluations(suite="ioi")` opens the page with these parameters in the address."""

    def open_(**query: object) -> AppTest:
        page = open_page(folder)
        page.session_state["go_to_page"] = ("evaluations", query)
        page.run()
        assert not page.exception
        return page

    return open_


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def test_reports_stand_side_by_side_under_their_runs_names(evaluations: OpenPage) -> None:
    page = evaluations(runs=["a", "b"])
    shown = html(page)
    assert page.title[0].value == "Evaluations"
    assert [box.value for box in page.multiselect] == [["a", "b"]]
    assert shown.index(">a</th>") < shown.index(">b</th>")
    assert "0.1040" in shown  # FVU
    assert "0.1010" in shown  # the lower end of its interval
    assert page.get("plotly_chart")


def test_a_truncated_report_is_a_sentence_beside_the_others(evaluations: OpenPage) -> None:
    page = evaluations(runs=["a", "c"])
    assert any("can't be read" in caption.value for caption in page.caption)
    assert ">a</th>" in html(page)


def test_the_first_visit_compares_what_there_is_and_says_so_in_the_address(evaluations: OpenPage) -> None:
    page = evaluations()
    assert page.segmented_control[0].value == "fidelity"
    assert page.query_params["runs"] == ["a", "b", "c"]
    page.segmented_control[0].set_value("sparsity").run()
    assert page.query_params["suite"] == ["sparsity"] or page.query_params["suite"] == "sparsity"
    page.multiselect[0].set_value(["b"]).run()
    assert page.query_params["runs"] in ("b", ["b"])
    assert ">a</th>" not in html(page)


def test_a_suite_that_nobody_ran_names_the_command(evaluations: OpenPage) -> None:
    assert "--suite labels</code>" in html(evaluations(suite="labels", runs=["a"]))
    assert "Nothing measured yet" in html(evaluations(suite="fidelity", runs=["d"]))


@pytest.mark.parametrize("names", [["../a"], ["/etc"], ["<script>"], [""]])
def test_names_that_were_not_found_are_left_out(evaluations: OpenPage, names: list[str]) -> None:
    assert evaluations(runs=names).multiselect[0].value == ["a", "b", "c"]


def test_the_readers_own_run_comes_first_then_its_site(folder: Path) -> None:
    for number in range(FIRST):
        write_run(folder / f"z{number}", Shape(d_sae=16, n_rows=20), indexed=False)
    config = folder / "a" / "dictionary" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "site": "blocks.0.resid_pre"}))
    found = open_workspace([folder])
    line = first_in_line(found, [name for name in found.runs if name != "d"], "z3")
    assert line[:3] == ["z3", "b", "c"]
    assert len(line) == FIRST
    assert "a" not in line  # at another site


def test_ioi_shows_what_its_page_shows(evaluations: OpenPage) -> None:
    page = evaluations(suite="ioi")
    shown = html(page)
    assert "train names, all" in shown
    assert "name movers" in shown
    assert [box.value for box in page.selectbox] == ["ioi-demo", "task and circuit"]
    assert len(page.get("plotly_chart")) == 2  # the heat map, occlusion
    page.selectbox[1].set_value("(B)NM z").run()
    assert page.query_params["part"] in ("(B)NM z", ["(B)NM z"])
    shown = html(page)
    for row in ("supervised MSE (supervised)", "task topk (agnostic)"):
        assert row in shown
    assert "4: IO Mary" in shown  # the best described latent
    assert len(page.get("plotly_chart")) >= 3  # decomposition, edits, F1


def test_runs_that_were_judged_together_have_one_report(evaluations: OpenPage, folder: Path) -> None:
    for name in "ab":
        ioi_report("full-distribution topk").save(folder / name / "evaluation" / "ioi.json")
    ioi_report("other").save(folder / "c" / "evaluation" / "ioi.json")
    page = evaluations(suite="ioi", ioi="a and 1 more", part="(B)NM z")
    assert list(page.selectbox[0].options) == ["ioi-demo", "a and 1 more", "c"]
    assert "full-distribution topk (agnostic)" in html(page)


def test_texts_of_reports_are_text(evaluations: OpenPage, folder: Path) -> None:
    ioi_report("<script>alert(1)</script>").save(folder / "ioi-demo" / "ioi.json")
    shown = html(evaluations(suite="ioi", part="(B)NM z"))
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 99}', ""])
def test_a_damaged_judgement_is_a_sentence(evaluations: OpenPage, folder: Path, damage: str) -> None:
    (folder / "ioi-demo" / "ioi.json").write_text(damage)
    assert "This can&#x27;t be read" in html(evaluations(suite="ioi"))


def test_a_run_that_disappears_between_clicks_is_left_out(evaluations: OpenPage, folder: Path) -> None:
    page = evaluations(runs=["a", "b"])
    shutil.rmtree(folder / "b")
    page.segmented_control[0].set_value("sparsity").run()
    assert not page.exception
    assert ">a</th>" in html(page)


def test_nothing_judged_names_the_command(evaluations: OpenPage, folder: Path) -> None:
    shutil.rmtree(folder / "ioi-demo")
    assert "<code>saelab ioi demo</code>" in html(evaluations(suite="ioi"))


def test_several_in_one_pass_stand_beside_each_alone(evaluations: OpenPage, folder: Path) -> None:
    """Where errors add up, the sum of each alone is the damage of all."""
    fidelity = json.loads((folder / "a" / "evaluation" / "fidelity.json").read_text())
    names = list(OutputMetrics.model_fields)
    alone = dict.fromkeys(names, 0.25) | {"l0": 4.0, "l0_together": 5.0}
    report = TogetherReport.model_validate(
        {
            "about": [fidelity["about"] | {"dictionary": name} for name in ("a", "<b>")],
            "metrics": dict.fromkeys(names, 0.5) | {"delta_ce_sum": 0.75},
            "intervals": fidelity["intervals"] | {"of": {"delta_ce": {"low": 0.4, "high": 0.6}}},
            "alone": [
                {"dictionary": name, "metrics": alone, "intervals": fidelity["intervals"] | {"of": {}}}
                for name in ("a", "<b>")
            ],
        }
    )
    report.save(folder / "a" / "evaluation" / "together.json")
    page = evaluations(suite="together", runs=["a"])
    shown = html(page)
    assert "0.7500" in shown
    assert "&lt;b&gt; alone" in shown
    assert "<b> alone" not in shown
    (figure,) = page.get("plotly_chart")
    assert json.loads(figure.proto.spec)["data"][0]["x"] == [0.25, 0.25, 0.75, 0.5]
    (folder / "a" / "evaluation" / "together.json").write_text("{")
    assert any("can't be read" in caption.value for caption in evaluations(suite="together", runs=["a"]).caption)


def test_every_number_is_defined_and_a_comparison_offered(evaluations: OpenPage, folder: Path) -> None:
    page = evaluations(runs=["a", "b"])
    assert all(escape(field.description or "") in html(page) for field in FidelityMetrics.model_fields.values())
    assert f"saelab compare {folder / 'a'} {folder / 'b'}" in [code.value for code in page.code]
    assert not evaluations(runs=["a"]).code


def test_a_report_that_is_made_anew_is_shown_anew(evaluations: OpenPage, folder: Path) -> None:
    assert "0.1040" in html(evaluations(runs=["a"]))
    path = folder / "a" / "evaluation" / "fidelity.json"
    report = json.loads(path.read_text())
    report["metrics"]["fvu"] = 0.7654
    path.write_text(json.dumps(report))
    assert "0.7654" in html(evaluations(runs=["a"]))
