"""A tiny random GPT-2, held-out rows for it, and dictionaries whose answers are known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from saelab.corpora import Cursor, Reason, TokenRows
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.batch import Subject
from saelab.models import LanguageModel, Site

CONTEXT, VOCABULARY, WIDTH, HEADS = 12, 40, 16, 2


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=HEADS, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LanguageModel.from_hf(GPT2LMHeadModel(config), name="tiny")


@pytest.fixture(scope="session")
def rows() -> TokenRows:
    """Ten rows of five documents; position 0 and every token 0 are excluded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (10, CONTEXT), generator=generator, dtype=torch.int32)
    documents = (torch.arange(10 * CONTEXT) // 24).reshape(10, CONTEXT)
    excluded = (ids == 0).byte() * Reason.SPECIAL
    excluded[:, 0] = Reason.FIRST
    return TokenRows(ids, documents, torch.zeros_like(ids), excluded, Cursor(), Cursor())


@pytest.fixture(scope="session")
def cut(rows: TokenRows) -> Callable[..., list[TokenRows]]:
    """The rows in chunks of a size, in another order if one is given."""

    def build(size: int, order: Sequence[int] = range(10)) -> list[TokenRows]:
        return [
            TokenRows(rows.ids[i], rows.documents[i], rows.offsets[i], rows.excluded[i], rows.start, rows.next)
            for i in torch.tensor(list(order)).split(size)
        ]

    return build


@pytest.fixture(scope="session")
def chunks(cut: Callable[..., list[TokenRows]]) -> list[TokenRows]:
    return cut(4)


@pytest.fixture(scope="session")
def make_subject(model: LanguageModel) -> Callable[..., Subject]:
    """A dictionary of given weights: rule "threshold" if there is one, else top-k."""

    def build(
        site: str, W_enc: Tensor, W_dec: Tensor, *, b_dec: Tensor | None = None, threshold: float | None = None,
        k: int = 4, scale: float = 1.0, name: str = "test", model_fingerprint: str = model.fingerprint,
        tokenizer_fingerprint: str = "",
    ) -> Subject:  # fmt: skip
        d_sae, d_in = W_enc.shape
        settings = DictionaryConfig(
            architecture="topk", d_in=d_in, d_sae=d_sae, k=k, affinity=ActivationAffinity(), allocation=TokenChoice(),
            rule="topk" if threshold is None else "threshold", scale=scale, site=site, model=model.name,
            model_fingerprint=model_fingerprint, tokenizer_fingerprint=tokenizer_fingerprint, policy={},
            tokens_trained=0, saelab_version="0",
        )  # fmt: skip
        thresholds = torch.zeros(0) if threshold is None else torch.full((d_sae,), threshold)
        b_dec = torch.zeros(d_in) if b_dec is None else b_dec
        dictionary = Dictionary(W_enc, W_dec, torch.zeros(d_sae), b_dec, thresholds, settings)
        return Subject(name, dictionary, Site.parse(site))

    return build


@pytest.fixture(scope="session")
def identity(model: LanguageModel, make_subject: Callable[..., Subject]) -> Callable[[str], Subject]:
    """x = relu(x) - relu(-x): two latents for each coordinate reconstruct everything."""

    def build(site: str) -> Subject:
        eye = torch.eye(model.width(Site.parse(site)))
        weights = torch.cat([eye, -eye])
        return make_subject(site, weights, weights, threshold=0.0, name="identity")

    return build


@pytest.fixture(scope="session")
def random_subject(model: LanguageModel, make_subject: Callable[..., Subject]) -> Callable[..., Subject]:
    """A top-k dictionary of random unit rows."""

    def build(site: str, seed: int = 0, d_sae: int = 32, **options) -> Subject:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(d_sae, model.width(Site.parse(site)), generator=generator)
        weights = torch.nn.functional.normalize(weights, dim=1)
        return make_subject(site, weights, weights, name=f"random-{seed}", **options)

    return build
