"""Whatever happens to a run's files, every page says a sentence: no traceback, no page that fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import links
from app.routes import routes
from tests.app.synthetic import Shape, write_run

OpenPage = Callable[..., AppTest]


def half(path: Path) -> None:
    """As a writer leaves it that was stopped in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no dictionary": lambda run: shutil.rmtree(run / "dictionary"),
    "empty dictionary": lambda run: (shutil.rmtree(run / "dictionary"), (run / "dictionary").mkdir()),  # type: ignore
    "half a config": lambda run: half(run / "dictionary" / "config.json"),
    "another config": lambda run: (run / "dictionary" / "config.json").write_text("[]"),
    "half the weights": lambda run: half(run / "dictionary" / "dictionary.safetensors"),
    "half a report": lambda run: [half(path) for path in (run / "evaluation").glob("*.json")],
    "other reports": lambda run: [path.write_text('"x"') for path in (run / "evaluation").glob("*.json")],
    "half the index": lambda run: [
        path.unlink() for path in sorted((run / "features").glob("*.parquet"))[::2]
    ],
    "half of each table": lambda run: [half(path) for path in (run / "features").glob("*.parquet")],
    "half a summary": lambda run: half(run / "features" / "index.json"),
    "a file in its place": lambda run: (shutil.rmtree(run / "features"), (run / "features").write_text("")),  # type: ignore
    "half a line of metrics": lambda run: half(run / "metrics.jsonl"),
    "no metrics but binary ones": lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\xfe\x00"),
    "gone": lambda run: shutil.rmtree(run),
}  # fmt: skip


PAGES = (links.RUNS, "", links.LATENT, links.SEARCH, links.PROMPT, links.STEER, links.EVALUATIONS)


def test_every_page_is_among_those_tested() -> None:
    assert len(routes()) == len(PAGES)


def said(page: AppTest) -> str:
    texts = [element.proto.body for element in page.get("html")]
    texts += [element.value for kind in (page.title, page.caption, page.markdown) for element in kind]
    return "\n".join(texts)


def visit(page: AppTest, path: str, /, **query: str) -> AppTest:
    page.session_state["go_to_page"] = (path, {name: [value] for name, value in query.items()})
    return page.run()


def assert_fine(page: AppTest, where: str) -> None:
    assert not page.exception, where
    assert "This page failed" not in said(page), where
    assert "Traceback" not in said(page), where
    assert len(said(page)) > 20, where


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_a_sentence_on_every_page(open_page: OpenPage, tmp_path: Path, damage: str) -> None:
    write_run(tmp_path / "mine", Shape(d_sae=16, n_rows=20))
    DAMAGES[damage](tmp_path / "mine")
    page = open_page(tmp_path, run="mine")
    for path in PAGES:
        assert_fine(visit(page, path, run="mine"), path)


@pytest.mark.parametrize("damage", ["gone", "no dictionary", "half a report", "half of each table"])
def test_a_run_that_changes_between_clicks_is_a_sentence(open_page: OpenPage, tmp_path: Path, damage: str) -> None:
    """With everything read and cached before it happens."""
    write_run(tmp_path / "mine", Shape(d_sae=16, n_rows=20))
    write_run(tmp_path / "other", Shape(d_sae=16, n_rows=20), indexed=False)
    page = open_page(tmp_path, run="mine")
    for path in PAGES:
        visit(page, path, run="mine")
    DAMAGES[damage](tmp_path / "mine")
    for path in PAGES:
        assert_fine(visit(page, path, run="mine"), path)


@pytest.mark.parametrize("name", ["../mine", "/etc/passwd", "mine/../../x", "%2e%2e/mine", "<script>alert(1)</script>"])
def test_an_address_does_not_lead_out_of_the_folders(open_page: OpenPage, tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "inside" / "ours", Shape(d_sae=16, n_rows=20))
    write_run(tmp_path / "mine", Shape(d_sae=24, n_rows=20))
    page = open_page(tmp_path / "inside")
    for path in PAGES:
        visit(page, path, run=name, runs=name, ioi=name, latent=name, token=name, sort=name, page=name)
        assert_fine(page, path)
        assert "<script" not in said(page)
        assert str(tmp_path / "mine") not in said(page)
