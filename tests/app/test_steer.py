"""The Steer page's logic: settings from and to the address, what is computed, texts that can be stopped, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest
from torch.testing import assert_close

from app.steer import files, steering, texts
from app.steer.form import place, spelled
from app.steer.settings import as_json, as_python, from_address, from_json, to_address
from app.workspace import Run
from saelab.disk import RunPaths
from saelab.errors import UserError
from saelab.steering.config import SteerConfig
from saelab.steering.steer import steer

OpenPage = Callable[..., AppTest]
LATENTS = "9, 3"
HOSTILE = "<script>x</script> **b**"


@pytest.fixture
def run(minds: Path) -> Run:
    return Run("mind", RunPaths(minds / "mind"))


@pytest.fixture
def open_steer(open_page: OpenPage, minds: Path) -> OpenPage:
    def open_(run: str = "mind", **query: object) -> AppTest:
        page = open_page(minds, run=run)
        page.session_state["go_to_page"] = ("steer", {"run": [run], **{k: [str(v)] for k, v in query.items()}})
        return page.run()

    return open_


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def settings(run: Run, **changes: Any) -> SteerConfig:
    base = {"run": run.paths.root, "latent": [9, 3], "prompt": "The", "max_new_tokens": 5, "strength": [1.0, 3.0]}
    return SteerConfig.model_validate({**base, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ratio": [1.0, -0.5], "positions": "2:", "samples": 3, "seed": 7},
        {"mode": "zero"},
        {"method": "direction", "strength": [-1.5, 2.0], "top_k": 5, "top_p": 0.5, "temperature": 0.0},
        {"prompt": "", "mode": "clamp", "positions": "-1:"},
        {"strength": [0.123456789, 1e-7]},
    ],
)
def test_the_address_and_the_file_hold_every_setting(run: Run, changes: dict[str, Any]) -> None:
    config = settings(run, **changes)
    assert from_address(run, to_address(config)) == config
    assert from_json(as_json(config).encode()) == config


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({}, "latents is empty"),
        ({"latents": "x"}, "latents 'x' can't be read; write whole numbers"),
        ({"latents": "1.5"}, "whole numbers"),
        ({"latents": "1", "strength": "1; two"}, "strength '1; two' can't be read; write numbers"),
        ({"latents": "1", "mode": "explode"}, "mode"),
        ({"latents": "1", "method": "direction", "mode": "zero"}, "can only add"),
        ({"latents": "1", "positions": "here"}, "positions"),
        ({"latents": "1", "max_new_tokens": "9999"}, "max_new_tokens is more than 256"),
        ({"latents": "1", "strength": "1,2,3,4,5,6,7"}, "strength is more than 6"),
        ({"latents": "1", "prompt": "a" * 1001}, "more than 1000 characters"),
        ({"latents": "1", "ratio": "1, 2"}, "ratio has 2 numbers for 1 latents"),
    ],
)
def test_settings_that_can_not_be_are_a_sentence(run: Run, query: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        from_address(run, query)


@pytest.mark.parametrize("content", [b"\xff", b"{", b"[1]", b'{"latent": [1], "prompt": 3, "run": "x"}', b'{"a": 1}'])
def test_a_file_that_is_none_is_a_sentence(content: bytes) -> None:
    with pytest.raises(UserError):
        from_json(content)


def test_positions_by_kind() -> None:
    for text in ("all", "-1:", "5:", "5", "-3:", "0"):
        kind, number = place(text)
        assert spelled(kind, number or 0) == text
    assert place("5:") == ("from", 5)
    assert place("nonsense") == ("all", None)


def test_units_are_the_largest_activations(run: Run) -> None:
    from saelab.features.index import FeatureIndex

    index = FeatureIndex(run.paths.features)
    units = steering.units(run, settings(run))
    assert float(units[9]) == pytest.approx(index.latent(9).max_activation)
    assert units.count_nonzero() == 2
    with pytest.raises(UserError, match="latents 0 to 47"):
        steering.units(run, settings(run, latent=[48]))


def test_answers_hold_the_grid_and_what_was_asked_for(run: Run) -> None:
    answers = steering.answers(run, settings(run))
    assert {0.0, 1.0, 3.0} <= set(answers.strengths)
    assert_close(answers.at(0.0), answers.clean)
    assert not torch.equal(answers.at(3.0), answers.clean)
    assert steering.answers(run, settings(run, samples=3, seed=9)) is answers  # how texts are drawn changes nothing
    assert steering.answers(run, settings(run, mode="zero")).strengths == [None]
    with pytest.raises(UserError, match="nothing would be edited"):
        steering.answers(run, settings(run, positions="9:"))


def test_without_latents_some_are_offered(open_steer: OpenPage) -> None:
    page = open_steer("bare")
    assert "Which latents?" in html(page)
    assert not page.exception


def test_the_page_computes_at_once(open_steer: OpenPage) -> None:
    page = open_steer(latents=LATENTS, prompt="The cat", strength="1, 2")
    assert not page.exception
    assert [heading.value for heading in page.subheader] == ["The next token", "Texts", "Take it along"]
    assert html(page).count('<div class="sl-curves"') == 2
    assert 'class="sl-key"' in html(page)
    assert page.button(key="steer_write").label == "Write 3 texts"
    followed = open_steer(latents=LATENTS, prompt="The cat", tokens="40,41")
    assert followed.multiselect(key="steer_tokens").value == [40, 41]


def test_settings_that_can_not_be_leave_the_controls(open_steer: OpenPage) -> None:
    page = open_steer(latents="99", prompt="The")
    assert "latent 99 does not exist" in html(page)
    assert page.text_input(key="address_latents").value == "99"
    page.text_input(key="address_latents").set_value("9").run()
    assert page.query_params["latents"] == "9"
    assert html(page).count('<div class="sl-curves"') == 2


def test_texts_are_those_of_the_command(open_steer: OpenPage, run: Run) -> None:
    page = open_steer(latents=LATENTS, prompt="The", strength="1, 3", max_new_tokens=5, samples=2)
    page.button(key="steer_write").click().run()
    assert not page.exception
    expected = [text.text for text in steer(settings(run, samples=2))]
    written = page.session_state[texts.WRITTEN]
    assert len(written.whole) == 6
    assert [texts._decoded(run, written.ids[v, s]) for v in range(3) for s in range(2)] == expected
    assert page.button(key="steer_write").label == "Write 6 texts"
    assert html(page).count('class="sl-text"') == 6
    page.text_input(key="address_strength").set_value("2").run()
    assert any("settings have changed" in caption.value for caption in page.caption)


def test_the_python_lines_write_the_same(run: Run) -> None:
    config = settings(run, positions="1:", ratio=[1.0, 0.5])
    said = StringIO()
    with redirect_stdout(said):
        exec(as_python(config), {})
    assert said.getvalue() == "".join(
        f"{text.strength if text.edited else 'as it is'} {text.seed} {text.text}\n" for text in steer(config)
    )


def test_the_file_is_what_the_command_takes(run: Run, tmp_path: Path, saelab: Any) -> None:
    config = settings(run)
    (tmp_path / "steering.json").write_text(as_json(config))
    result = saelab("steer", tmp_path / "steering.json")
    assert result.code == 0, result.err
    assert all(text.text.split()[0] in result.out for text in steer(config) if text.text.split())


def test_stopping_ends_the_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the script (Streamlit raises at a call of its own) ends the drawing of tokens with it."""

    class Stopped(BaseException):
        pass

    drawn: list[int] = []

    def tokens(*_: object) -> Any:
        for token in range(1000):
            drawn.append(token)
            yield token

    def fill(*_: object) -> None:
        if len(drawn) >= 3:
            raise Stopped

    monkeypatch.setattr(texts, "_tokens", tokens)
    monkeypatch.setattr(texts, "_fill", fill)
    monkeypatch.setattr(texts, "STEP_SECONDS", 0.0)
    written = texts.Written("")
    with pytest.raises(Stopped):
        texts._write(run, settings(run), written, [None], {(0, 0): st.empty()})
    assert drawn == [0, 1, 2]
    assert written.ids == {(0, 0): [0, 1, 2]}
    assert not written.whole


def test_two_visitors_do_not_see_each_others_texts(open_steer: OpenPage) -> None:
    query = {"latents": LATENTS, "prompt": "The", "strength": "1", "max_new_tokens": 3}
    one, two = open_steer(**query), open_steer(**query)
    one.button(key="steer_write").click().run()
    two.run()
    assert 'class="sl-text"' in html(one)
    assert 'class="sl-text"' not in html(two)
    assert texts.WRITTEN not in two.session_state


def test_hostile_text_is_text(open_steer: OpenPage) -> None:
    page = open_steer(latents=LATENTS, prompt=HOSTILE, max_new_tokens=3)
    page.button(key="steer_write").click().run()
    assert "&lt;script&gt;" in html(page)
    assert "<script" not in html(page)
    said = [element.value for kind in (page.markdown, page.caption, page.subheader) for element in kind]
    assert not [text for text in said if "**b**" in text]


class Address(dict[str, str]):
    """As much of `st.query_params` as is needed."""

    def from_dict(self, new: dict[str, str]) -> None:
        self.clear()
        self.update(new)


def test_a_file_is_put_into_the_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_json(settings(run).model_copy(update={"run": Path("/somewhere/other")}))
    state: dict[str, Any] = {"file": SimpleNamespace(getvalue=content.encode)}
    address = Address(latents="1", tokens="4")
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(st, "query_params", address)
    files._open(run, "file")
    assert address == {"run": "mind", "latents": "9, 3", "strength": "1, 3", "prompt": "The", "max_new_tokens": "5"}
    assert "chosen in the run other" in state["steer_file_said"]
    state["file"] = SimpleNamespace(getvalue=lambda: b"nonsense")
    files._open(run, "file")
    assert "Not opened: the file is not JSON" in state["steer_file_said"].replace("\\", "")
    assert address["latents"] == "9, 3"


def test_the_exported_json_is_readable(run: Run) -> None:
    content = json.loads(as_json(settings(run, prompt="é")))
    assert content["latent"] == [9, 3]
    assert "é" in as_json(settings(run, prompt="é"))
