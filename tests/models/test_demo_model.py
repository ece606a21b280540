"""The bundled model, through the same door."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from saelab.disk import bundled
from saelab.models import LanguageModel, Site
from saelab.models.site import KINDS

FOLDER = bundled("artifacts/demo-model")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="artifacts/demo-model isn't there yet")
TEXT = "Once upon a time, there was a little girl named Lily."


@pytest.fixture(scope="module")
def demo():
    return LanguageModel.load("demo", device="cpu")


@pytest.fixture(scope="module")
def row(demo):
    return torch.tensor([[demo.bos_token_id, *demo.tokenizer(TEXT)["input_ids"]]])


def test_it_opens_in_fp32_with_its_own_tokenizer(demo):
    assert (demo.name, demo.revision, demo.dtype) == ("demo", None, torch.float32)
    assert demo.width(Site(0, "resid_pre")) == demo.d_model
    assert len(demo.tokenizer) == demo.d_vocab
    ids = demo.tokenizer(TEXT)["input_ids"]
    assert demo.tokenizer.decode(ids) == TEXT
    assert max(ids) < demo.d_vocab


def test_losses_equal_hugging_faces(demo, row):
    plain = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    assert_close(demo.logits(row), plain(row).logits.detach(), atol=1e-4, rtol=1e-5)
    assert_close(demo.loss(row).mean(), plain(row, labels=row).loss.detach(), atol=1e-5, rtol=1e-5)


def test_it_knows_how_stories_begin(demo, row):
    assert demo.loss(row).mean() < 4  # ln 4096 = 8.3 for a model that knows nothing


def test_every_kind_of_site_arrives(demo, row):
    sites = [Site(layer, kind) for layer in range(demo.n_layers) for kind in KINDS]
    found = demo.activations(row, sites)
    assert all(found[site].shape == (1, row.shape[1], demo.width(site)) for site in sites)
    # the stream is what is added to it
    pre, attn, mid, mlp, post = (
        found[Site(1, k)] for k in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    )
    assert_close(pre + attn, mid, atol=1e-4, rtol=1e-5)
    assert_close(mid + mlp, post, atol=1e-4, rtol=1e-5)
