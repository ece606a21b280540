from pathlib import Path

import pytest

from saelab.cli.inspect import describe
from saelab.disk import RunPaths
from saelab.errors import UserError


def test_a_run_says_what_it_is_and_what_comes_next(finished: Path) -> None:
    lines = dict(describe(finished))
    assert "finished" in lines["run"]
    assert lines["size"] == "16 → 32 latents, k = 4, rule topk"
    assert lines["site"].startswith("blocks.0.resid_post of ")
    assert "golden" in lines["checks"]
    assert "saelab index" in lines["feature index"]


def test_a_dictionary_alone(finished: Path) -> None:
    lines = dict(describe(RunPaths(finished).dictionary))
    assert lines["what"].startswith("dictionary (schema 1), topk")
    assert lines["trained"].startswith("1,024 tokens")


def test_decoder_rows_have_unit_norm(finished: Path) -> None:
    assert dict(describe(finished))["decoder norms"] == "1 … 1 … 1 (least, median, largest)"


def test_a_model_folder(tiny_model: Path) -> None:
    lines = dict(describe(tiny_model))
    assert lines["what"] == "Hugging Face model folder, GPT2LMHeadModel (gpt2)"
    assert (lines["layers"], lines["width"], lines["context"]) == ("2", "16", "32")


def test_anything_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither"):
        describe(tmp_path)
