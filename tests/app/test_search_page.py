"""Searching by example texts and by direction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from app.prompt.prompts import Prompt
from app.search.direction import numbers
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.features import FeatureIndex
from saelab.features.prompt import Prediction, PromptReading
from saelab.kernels.codes import SparseCodes
from tests.app.synthetic import Shape, write_run
from tests.app.test_views import html

OpenPage = Callable[..., AppTest]


def search(page: AppTest, run: str = "small", **query: str) -> AppTest:
    page.session_state["go_to_page"] = ("search", {"run": [run], **{name: [value] for name, value in query.items()}})
    page.run()
    assert not page.exception
    return page


def read(text: str, codes: dict[int, list[float]]) -> Prompt:
    """A text of as many words as there are activations, the first of them left out."""
    words = text.split()
    dense = torch.zeros(len(words), 96)
    for latent, values in codes.items():
        dense[:, latent] = torch.tensor(values)
    unknown = torch.full((len(words),), torch.nan)
    predicted = Prediction(unknown, torch.zeros(len(words), 1))
    excluded = torch.zeros(len(words), dtype=torch.uint8)
    excluded[0] = 2
    reading = PromptReading(
        torch.arange(len(words)), excluded, SparseCodes.from_mask(dense, dense > 0), unknown,
        torch.zeros(len(words), 1, dtype=torch.int64), predicted, predicted, unknown,
    )  # fmt: skip
    return Prompt(text, reading, tuple(words), 0)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    """Two texts whose codes are known: latent 3 is on both, 4 on the first alone, 5 on the second, 95 is new."""
    unit = [FeatureIndex(runs / "small" / "features").latent(latent).max_activation or 0.0 for latent in range(6)]
    found = {
        "a cat <b>": {3: [0, unit[3], 0], 4: [0, 0, 0.75 * unit[4]], 95: [0, 1, 0]},
        "a dog": {3: [0, 0.5 * unit[3]], 5: [0, unit[5]]},
    }
    monkeypatch.setattr("app.prompt.prompts.prompt", lambda run, text: read(text, found[text]))


def test_examples_are_ranked_by_contrast_and_the_page_says_what_that_is(open_page: OpenPage, texts: None) -> None:
    page = search(open_page(run="small"), by="example", on="a cat <b>", off="a dog")
    rows = html(page).split("<tbody>")[1].split("</tr>")[:-1]
    assert len(rows) == 2
    assert ">4 " in rows[0]
    assert '<td class="sl-number">0.75</td>' in rows[0]
    assert ">3 " in rows[1]
    assert '<td class="sl-number">0.50</td>' in rows[1]
    assert "&lt;b&gt;" in rows[0]
    captions = " ".join(caption.value for caption in page.caption)
    assert "Contrast = strength on the first text − strength on the second" in captions
    assert "its largest activation on any token" in captions
    assert "1 latents that fire here and never did in the index are left out" in captions


def test_means_and_a_single_text(open_page: OpenPage, texts: None) -> None:
    page = search(open_page(run="small"), by="example", on="a cat <b>", strength="mean")
    rows = html(page).split("<tbody>")[1].split("</tr>")[:-1]
    assert '<td class="sl-number">0.50</td>' in rows[0]  # latent 3: 1 on one of two kept tokens
    assert ">3 " in rows[0]
    assert '<td class="sl-number">0.38</td>' in rows[1]
    nothing = search(open_page(run="small"), by="example")
    assert any("Type or paste a text" in caption.value for caption in nothing.caption)
    other = search(open_page(run="small"), by="example", on="a dog", off="a dog")
    assert any("No latent fires more strongly" in caption.value for caption in other.caption)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs whose decoder rows are known: in `one` row i points along axis i mod 16, in `two` they are reversed."""
    for name, sign in (("one", 1), ("two", -1)):
        paths = write_run(tmp_path / name, Shape(d_sae=32, n_rows=20))
        rows = sign * np.tile(np.eye(16, dtype=np.float32), (2, 1))
        rows[16:] += 0.5
        save_file({"W_dec": rows, "W_enc": -rows}, DictionaryPaths(paths.dictionary).weights)
    return tmp_path


def nearest(page: AppTest) -> list[str]:
    section = next(part for part in html(page).split("<section>") if ">Nearest<" in part)
    return [part.split("latent=")[1].split('"')[0] for part in section.split("sl-label")[1:]]


def test_nearest_to_a_row_of_this_run_or_of_another(open_page: OpenPage, folder: Path) -> None:
    page = search(open_page(folder, run="one"), "one", by="direction", n="5")
    assert nearest(page)[0] == "5"
    assert "+1.000" in html(page)
    assert "Of 32 decoder rows of 16 numbers" in page.caption[-1].value
    encoder = search(
        open_page(folder, run="one"), "one", **{"by": "direction", "from": "encoder", "of": "two", "n": "5"}
    )
    assert nearest(encoder)[0] == "5"  # twice reversed
    decoder = search(
        open_page(folder, run="one"), "one", **{"by": "direction", "from": "decoder", "of": "two", "n": "5"}
    )
    assert "5" not in nearest(decoder)
    elsewhere = search(open_page(folder, run="one"), "one", by="direction", of="../../etc", n="999")
    assert nearest(elsewhere)[0] == "0"  # no such run, no such latent: the beginning of this one


def test_a_row_of_another_site_is_marked(open_page: OpenPage, folder: Path) -> None:
    config = folder / "two" / "dictionary" / "config.json"
    config.write_text(config.read_text().replace("blocks.2.resid_post", "blocks.0.mlp_out"))
    page = search(open_page(folder, run="one"), "one", by="direction", of="two")
    assert any("coordinates may mean something else" in caption.value for caption in page.caption)


def test_pasted_numbers(open_page: OpenPage, folder: Path) -> None:
    page = search(open_page(folder, run="one"), "one", **{"by": "direction", "from": "paste"})
    page.text_area(key="pasted").set_value(", ".join("1" if i == 7 else "0" for i in range(16))).run()
    assert nearest(page)[0] == "7"
    page.text_area(key="pasted").set_value("1 2 3").run()
    assert "has 3 numbers" in page.warning[0].value
    page.text_area(key="pasted").set_value("1 2 <b>").run()
    assert "is no number" in page.warning[0].value


def test_the_direction_of_a_token(open_page: OpenPage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def direction(ids: torch.Tensor) -> torch.Tensor:
        asked.extend(ids.tolist())
        return torch.eye(16)[[9]]

    fake = SimpleNamespace(logit_directions=direction, embeddings=lambda ids: -direction(ids))
    monkeypatch.setattr("app.model.language_model", lambda run: fake)
    page = search(open_page(folder, run="one"), "one", **{"by": "direction", "from": "raises", "t": "said"})
    assert nearest(page)[0] == "9"
    vocabulary = FeatureIndex(folder / "one" / "features").vocabulary
    assert vocabulary[asked[0]] == " said"
    page = search(open_page(folder, run="one"), "one", **{"by": "direction", "from": "embedding", "t": "said"})
    assert "9" not in nearest(page)
    page = search(open_page(folder, run="one"), "one", **{"by": "direction", "from": "raises", "t": "zzzz"})
    assert "no token of the model reads" in page.warning[0].value.replace("\\", "").lower()


@pytest.mark.parametrize(
    "text",
    ["1, -2.5e3, 0", "[1, -2500, 0]", "[[1.0, -2500.,\n 0.]]", "tensor([1.0, -2.5e+03, 0.0])",
     "array([1, -2500, 0], dtype=float32)", "1;-2500;0"],
)  # fmt: skip
def test_numbers_in_any_common_notation(text: str) -> None:
    assert numbers(text).tolist() == [1, -2500, 0]


def test_words_are_no_numbers() -> None:
    with pytest.raises(UserError, match="'one' is no number"):
        numbers("1, one")
