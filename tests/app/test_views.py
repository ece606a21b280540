"""Every page's logic, without a browser: what it shows, what it says when something is missing, what the URL does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from saelab.features import schema
from tests.app.synthetic import HOSTILE, Shape, vocabulary, write_run

OpenPage = Callable[..., AppTest]


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def fresh_run(tmp_path: Path) -> Path:
    write_run(tmp_path / "mine", Shape(d_sae=16, n_rows=20))
    return tmp_path


def test_overview_shows_quality_starting_points_table_and_spread(open_page: OpenPage) -> None:
    page = open_page(run="small")
    assert page.title[0].value == "small"
    assert [heading.value for heading in page.subheader] == [
        "Latents to start with", "All latents", "How firing is spread", "Map of decoder directions", "Training",
    ]  # fmt: skip
    shown = html(page)
    assert '<div class="sl-value">10.4%</div><div class="sl-note">[10.1%, 10.7%]</div>' in shown  # FVU and its interval
    assert '<div class="sl-value">97.9%</div>' in shown  # loss recovered
    assert '0.120<span class="sl-unit">nats/token</span>' in shown
    assert 'class="sl-link sl-card"' in shown
    assert "1–25 of 96" in shown
    assert not page.exception


def test_overview_without_reports_and_index_names_the_commands(open_page: OpenPage, runs: Path) -> None:
    shown = html(open_page(run="bare"))
    assert f"<code>saelab evaluate {runs / 'bare'}</code>" in shown
    assert f"<code>saelab index {runs / 'bare'}</code>" in shown


def test_overview_of_a_training_run_shows_its_curves_first(open_page: OpenPage) -> None:
    page = open_page(run="unfinished")
    assert page.subheader[0].value == "Training"
    assert page.caption[0].value == "Training now: 205k tokens, step 50, 9,000 tokens/s."
    assert "No dictionary yet" in html(page)


def test_no_runs_at_all_points_to_the_demo(open_page: OpenPage, tmp_path: Path) -> None:
    assert "<code>saelab demo</code>" in html(open_page(tmp_path))


@pytest.mark.parametrize("name", ["../small", "/etc", "small/../../x", "", "<script>alert(1)</script>"])
def test_a_run_that_was_not_found_leads_nowhere(open_page: OpenPage, name: str) -> None:
    page = open_page(run=name)
    if name:
        assert "No run named" in html(page)
        assert "<script" not in html(page)
        assert not page.title
    else:
        assert page.query_params["run"] == "small"  # an empty name is none: the first run that can be browsed


def test_the_address_gets_the_run_that_is_shown(open_page: OpenPage) -> None:
    assert open_page().query_params["run"] == "small"


def test_latent_page(open_page: OpenPage) -> None:
    page = open_page(run="small", latent=3)
    shown = html(page)
    assert page.title[0].value == "Latent 3"
    assert shown.count('class="sl-row"') == 8  # the strongest examples
    assert 'style="--a:100"' in shown  # the largest activation has the full colour
    for section in ("Fires on", "Promotes", "Suppresses", "Nearest directions", "Fires together with"):
        assert section in shown
    assert "Matches the labels" not in shown  # only every fourth latent has labels here
    assert "Matches the labels" in html(open_page(run="small", latent=4))


def test_latent_buttons_step_and_stop_at_the_ends(open_page: OpenPage) -> None:
    page = open_page(run="small", latent=0)
    assert page.button(key="previous").disabled
    page.button(key="next").click().run()
    assert page.title[0].value == "Latent 1"
    assert page.query_params["latent"] == "1"
    page.number_input(key="go_to").set_value(95).run()
    assert page.title[0].value == "Latent 95"
    assert page.button(key="next").disabled
    page.button(key="random").click().run()
    assert "never fired" not in html(page)  # random latents are live ones


def test_example_tabs_are_in_the_address(open_page: OpenPage) -> None:
    strongest = html(open_page(run="small", latent=3))
    page = open_page(run="small", latent=3, tab="weak")
    assert page.segmented_control[0].value == "weak"
    assert html(page) != strongest
    page.segmented_control[0].set_value("lower").run()
    assert page.query_params["tab"] == "lower"
    assert open_page(run="small", latent=3, tab="<b>").segmented_control[0].value == "top"


@pytest.mark.parametrize("number", ["96", "-1", "1e3", "²", "x", "9" * 5000])
def test_a_latent_that_does_not_exist_is_a_sentence(open_page: OpenPage, number: str) -> None:
    page = open_page(run="small", latent=number)
    assert "This dictionary has the latents 0 to 95." in html(page)
    assert not page.exception


def test_a_dead_latent_says_so_and_still_shows_what_it_promotes(open_page: OpenPage) -> None:
    shown = html(open_page(run="small", latent=95))
    assert "It never fired" in shown
    assert "Promotes" in shown


def test_hostile_text_is_text_everywhere(open_page: OpenPage) -> None:
    pages = [open_page(run="small"), *(open_page(run="small", latent=latent) for latent in range(0, 24, 3))]
    shown = "\n".join(html(page) for page in pages)
    assert "&lt;script&gt;" in shown  # it is there, as text
    assert "<script" not in shown
    assert 'onmouseover="x' not in shown.replace("&quot;", "'")
    assert "\u202e" not in shown  # would turn the direction of what follows


def test_markdown_places_hold_no_corpus_text(open_page: OpenPage) -> None:
    page = open_page(run="small", latent=0)
    said = [element.value for kind in (page.markdown, page.caption, page.title, page.subheader) for element in kind]
    said += [option for control in page.segmented_control for option in control.options]
    strange = [text.strip() for text in HOSTILE if text.strip()]
    assert not [text for text in said if any(bad in text for bad in strange)]


def test_table_sorts_filters_and_pages_by_address(open_page: OpenPage) -> None:
    def first(**query: object) -> str:
        return html(open_page(run="small", **query)).split("<tbody>")[1].split("</tr>")[0]

    assert ">0</a>" in first(sort="latent", order="up")
    assert ">95</a>" in first(sort="latent", order="down")
    assert ">25</a>" in first(sort="latent", order="up", page=1)
    assert ">75</a>" in first(sort="latent", order="up", page=999)  # past the end: the last page
    assert first(sort="drop table", order="up", page="x") == first(sort="density", order="up")
    assert "said" in first(find="said")


def test_table_without_a_match_says_what_to_do(open_page: OpenPage) -> None:
    assert any("No latent matches" in caption.value for caption in open_page(run="small", find="qqqq").caption)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda run: (run / "features" / "examples.parquet").unlink(), "build the index again"),
        (lambda run: (run / "features" / "latents.parquet").write_bytes(b"PAR1"), "build the index again"),
        (lambda run: (run / "features" / "index.json").write_text("{"), "is damaged"),
        (lambda run: (run / "features" / "index.json").unlink(), "No feature index yet"),
        (lambda run: shutil.rmtree(run / "dictionary"), "Latent 0"),
        (lambda run: (run / "evaluation" / "fidelity.json").write_text("[]"), "Latent 0"),
        (lambda run: (run / "metrics.jsonl").write_text("{\n"), "Latent 0"),
    ],
)
def test_a_damaged_run_is_a_sentence(
    open_page: OpenPage, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    folder = fresh_run(tmp_path)
    damage(folder / "mine")
    page = open_page(folder, run="mine", latent=0)
    assert sentence in html(page) + "".join(title.value for title in page.title)
    assert not page.exception
    assert not open_page(folder, run="mine").exception


def test_a_run_that_disappears_while_open_is_a_sentence(open_page: OpenPage, tmp_path: Path) -> None:
    folder = fresh_run(tmp_path)
    page = open_page(folder, run="mine", latent=0)
    shutil.rmtree(folder / "mine")
    page.run()
    assert not page.exception
    assert "sl-empty" in html(page)


def test_a_new_index_replaces_the_cached_one(open_page: OpenPage, tmp_path: Path) -> None:
    folder = fresh_run(tmp_path)
    assert "1–16 of 16" in html(open_page(folder, run="mine"))
    shutil.rmtree(folder / "mine")
    write_run(folder / "mine", Shape(d_sae=20, n_rows=20))
    assert "1–20 of 20" in html(open_page(folder, run="mine"))


def test_two_visitors_do_not_share_state(open_page: OpenPage) -> None:
    one, two = open_page(run="small", latent=3), open_page(run="small", latent=7)
    one.button(key="next").click().run()
    two.run()
    assert one.title[0].value == "Latent 4"
    assert two.title[0].value == "Latent 7"


def test_unexpected_failures_keep_their_traceback_from_the_page(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the secret")

    monkeypatch.setattr("app.latent.page.examples", fail)
    page = open_page(run="small", latent=3)
    assert "This page failed" in html(page)
    assert "the secret" not in html(page)


def test_runs_page(open_page: OpenPage, tmp_path: Path) -> None:
    write_run(tmp_path / "better", Shape(d_sae=16, n_rows=20))
    write_run(tmp_path / "Worse & <b>", Shape(d_sae=32, n_rows=20), indexed=False)
    write_run(tmp_path / "bare", Shape(d_sae=8), evaluated=False, indexed=False)
    (tmp_path / "better" / "evaluation" / "fidelity.json").write_text("{}")
    page = open_page(tmp_path)
    page.session_state["go_to_page"] = ("runs", {"sort": "d_sae", "order": "down"})
    page.run()
    assert page.title[0].value == "Runs"
    rows = html(page).split("<tbody>")[1].split("</tr>")
    assert [row.split("</a>")[0].split(">")[-1] for row in rows[:3]] == ["Worse &amp; &lt;b&gt;", "bare", "better"]
    assert "damaged" in rows[2]  # sorts last: its size is not known
    assert ">trained<" in rows[1]
    assert ">evaluated<" in rows[0]


def test_search_finds_by_token_and_label(open_page: OpenPage) -> None:
    def search(**query: str) -> str:
        page = open_page(run="small")
        page.session_state["go_to_page"] = ("search", {"run": "small", **query})
        page.run()
        assert page.title[0].value == "Search"
        assert not page.exception
        return html(page)

    found = search(q="said")
    assert "Fires on it" in found
    assert 'sl-chosen"><i class="sl-space">␣</i>said' in found
    assert search(q="w1", token="99999") == search(q="w1")  # not one of its spellings: the nearest one
    assert "Detects the label “place”" in search(q="plac")
    assert "Nothing reads like that" in search(q="zzzz")
    assert "<script" not in search(q="<script")


def test_browsing_needs_no_torch() -> None:
    code = "import sys, app.routes, app.frame; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_synthetic_runs_have_the_real_schema(runs: Path) -> None:
    import pyarrow.parquet as pq

    root = runs / "small" / "features"
    for table in schema.TABLES:
        assert pq.read_schema(table.path(root)).equals(table.columns), table.name
    assert json.loads(schema.summary_path(root).read_text())["d_sae"] == 96
    assert len(vocabulary(Shape())) == 64


def changed_report(folder: Path, about: dict[str, object] | None = None, **changes: object) -> Path:
    """`folder` with the run `mine`, whose fidelity report has some entries changed."""
    file = fresh_run(folder) / "mine" / "evaluation" / "fidelity.json"
    report = json.loads(file.read_text())
    file.write_text(json.dumps({**report, **changes, "about": {**report["about"], **(about or {})}}))
    return folder


def test_gradient_aware_numbers_are_marked_as_leaking(open_page: OpenPage, tmp_path: Path) -> None:
    interval = {"level": 0.95, "resamples": 10, "of": {}}
    names = ("ce_sae", "delta_ce", "loss_recovered_zero", "loss_recovered_mean", "kl", "fvu", "l0")
    leaking = {"tokens_together": 60, "metrics": dict.fromkeys(names, -0.025), "intervals": interval}
    page = open_page(changed_report(tmp_path, leaking=leaking), run="mine")
    (caption,) = [caption for caption in page.caption if ":red[Leaking]" in caption.value]
    assert "ΔCE -0.025" in caption.value
    assert "-0.025" not in html(page)  # never among the headline's tiles
    assert not page.exception


def test_reports_of_earlier_weights_say_so(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(changed_report(tmp_path, about={"dictionary_sha256": "f" * 64}), run="mine")
    assert any("earlier weights" in caption.value for caption in page.caption)
    assert not any("earlier weights" in caption.value for caption in open_page(run="small").caption)
