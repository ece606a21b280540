"""What can go wrong on the way to the Hub: one sentence, nothing half done, and the same command again finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.conftest import weights_name
from tests.hub.server.local_hub import TOKEN, LocalHub

COMMIT = "POST /api/models/alice/saes/commit"
CASES = [
    ("PUT /storage", {"cut_upload": True}, "the connection to the Hub broke"),
    ("PUT /storage", {"status": 500}, "the Hub has an error of its own (500)"),
    (
        "POST /api/repos/create",
        {"status": 401, "message": "Invalid credentials in Authorization header"},
        "hf auth login",
    ),
    ("POST /api/repos/create", {"status": 403, "message": "no rights"}, "your token may not do this (no rights)"),
    ("POST /api/models/alice/saes/preupload", {"status": 403, "message": "no rights"}, "your token may not do this"),
    ("POST /api/models/alice/saes/preupload", {"status": 404, "message": "gone"}, "the Hub finds nothing there"),
    (COMMIT, {"status": 409, "message": "head moved"}, "was changed by somebody else meanwhile (head moved)"),
    (COMMIT, {"status": 412, "message": "head moved"}, "give the same command again"),
    (COMMIT, {"status": 429, "headers": {"Retry-After": "77"}}, "give the same command again in 77 seconds"),
    (COMMIT, {"cut_upload": True}, "the connection to the Hub broke"),
    (COMMIT, {"status": 400, "message": "bad card"}, "bad card"),
]


@pytest.mark.parametrize(("request_", "fault", "sentence"), CASES)
def test_one_sentence_no_half_state_and_a_repeat_finishes(
    saelab, hub: LocalHub, evaluated: Path, request_: str, fault: dict[str, object], sentence: str
) -> None:
    broken = hub.fail(request_, **fault)
    code, out, err = saelab("publish", evaluated, "alice/saes")
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("saelab: ")
    assert sentence in last
    assert "Traceback" not in err
    assert TOKEN not in out + err
    if "alice/saes" in hub.repositories:
        assert hub.repositories["alice/saes"].names() == []
    broken.times = 0
    assert saelab("publish", evaluated, "alice/saes").code == 0
    assert weights_name(evaluated) in hub.repositories["alice/saes"].names()


def test_what_was_sent_before_the_cut_is_not_sent_again(saelab, hub: LocalHub, evaluated: Path) -> None:
    broken = hub.fail(COMMIT, cut_upload=True)
    assert saelab("publish", evaluated, "alice/saes").code == 2
    sent = hub.asked("PUT /storage")
    assert sent > 0
    broken.times = 0
    assert saelab("publish", evaluated, "alice/saes").code == 0
    assert hub.asked("PUT /storage") == sent


def test_a_short_cut_is_bridged(saelab, hub: LocalHub, evaluated: Path) -> None:
    hub.fail("PUT /storage", cut_upload=True, times=1)
    assert saelab("publish", evaluated, "alice/saes").code == 0


def test_too_many_requests_are_waited_for(saelab, hub: LocalHub, evaluated: Path) -> None:
    hub.fail("POST /api/models/alice/saes/preupload", status=429, headers={"Retry-After": "9"}, times=2)
    assert saelab("publish", evaluated, "alice/saes").code == 0
    assert hub.waits.count(10.0) == 2


def test_somebody_elses_repository(saelab, hub: LocalHub, evaluated: Path) -> None:
    assert "your token may not do this" in saelab("publish", evaluated, "bob/saes").err
    assert "there is no repository alice/nope" in saelab("publish", evaluated, "alice/nope", "--pull-request").err


def test_without_a_token(saelab, hub: LocalHub, evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent")
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = saelab("publish", evaluated, "alice/saes")
    assert code == 2
    assert "hf auth login" in err


def test_nobody_answers(saelab, hub: LocalHub, evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "the connection to the Hub broke" in saelab("publish", evaluated, "alice/saes").err


def test_offline(saelab, hub: LocalHub, evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in saelab("publish", evaluated, "alice/saes").err
