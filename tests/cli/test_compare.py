"""`saelab compare`, and what `saelab evaluate` says beside measuring."""

import json


def test_too_few_runs_are_one_sentence(saelab, tmp_path) -> None:
    code, out, err = saelab("compare", tmp_path)
    assert (code, out) == (2, "")
    assert "runs" in err
    assert err.count("\n") == 1


def test_a_run_that_is_not_there_is_named(saelab, tmp_path) -> None:
    code, _, err = saelab("compare", tmp_path, tmp_path / "nowhere")
    assert code == 2
    assert err == f"saelab: {tmp_path / 'nowhere'} does not exist\n"


def test_schemas_are_printed(saelab) -> None:
    for suite in ("fidelity", "sparsity", "labels", "steering", "ioi", "compare"):
        code, out, _ = saelab("evaluate", "--schema", suite)
        assert code == 0
        assert suite in json.loads(out)["properties"]["suite"]["const"]


def test_an_unknown_suite_has_no_schema(saelab) -> None:
    code, out, err = saelab("evaluate", "--schema", "fidelty")
    assert (code, out) == (2, "")
    assert "there is no suite 'fidelty'; there are fidelity" in err
