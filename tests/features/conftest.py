"""A tiny random GPT-2 that reads bytes, a random dictionary on it, stories to read, and the index of all that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig, TokenPolicy, pack
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, Target, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.features import FeatureIndex, IndexConfig, build_index
from saelab.models import LanguageModel, Site

CONTEXT, WIDTH, D_SAE, K = 32, 16, 48, 4
POLICY = TokenPolicy(context=CONTEXT)


@dataclass(frozen=True)
class Truth:
    """The same text, dense: what the index must agree with."""

    ids: NDArray
    documents: NDArray
    kept: NDArray
    loss: NDArray  # NaN at row ends
    codes: NDArray  # [positions, d_sae]; zero where not kept


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {letter: n for n, letter in enumerate(letters, 1)}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def random_gpt2(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer) + 3, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    return LanguageModel.from_hf(random_gpt2(tokenizer), tokenizer, name="tiny")


@pytest.fixture(scope="session")
def model_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for other processes."""
    folder = tmp_path_factory.mktemp("model")
    random_gpt2(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    """Sixty short documents of random words."""
    draw = np.random.default_rng(0)
    words = ["cat", "dog", "sun", "sat", "on", "the", "a", "mat", "ran", "to", "red", "hill", "and", "saw", "Tom", "."]
    path = tmp_path_factory.mktemp("text") / "stories.jsonl"
    lines = [f'{{"text": "{" ".join(draw.choice(words, draw.integers(5, 40)))}"}}' for _ in range(60)]
    path.write_text("\n".join(lines) + "\n")
    return CorpusConfig(source=str(path))


@pytest.fixture(scope="session")
def make_dictionary(
    model: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Dictionary]]:
    """A random dictionary at a site, saved in a run directory."""

    def build(site: str = "blocks.0.resid_post", **changes: Any) -> tuple[Path, Dictionary]:
        generator = torch.Generator().manual_seed(2)
        d_in = model.width(Site.parse(site))
        weights = torch.nn.functional.normalize(torch.randn(D_SAE, d_in, generator=generator), dim=1)
        described: dict[str, Any] = {
            "architecture": "topk", "d_in": d_in, "d_sae": D_SAE, "k": K, "affinity": ActivationAffinity(),
            "allocation": TokenChoice(), "rule": "topk", "scale": 0.7, "site": site, "model": model.name,
            "model_fingerprint": model.fingerprint, "tokenizer_fingerprint": model.tokenizer_fingerprint or "",
            "policy": POLICY.model_dump(mode="json"), "tokens_trained": 0, "saelab_version": "0",
        }  # fmt: skip
        config = DictionaryConfig(**described | changes)
        bias = torch.zeros(D_SAE)
        bias[7] = -1e6  # one latent is dead
        bias[9] = 1.0  # and one is nearly always on
        dictionary = Dictionary(weights, weights.clone(), bias, torch.zeros(d_in), torch.zeros(0), config)
        run = tmp_path_factory.mktemp("run")
        dictionary.save(run / "dictionary", torch.randn(4, d_in, generator=generator))
        return run, dictionary

    return build


@pytest.fixture(scope="session")
def random_run(make_dictionary: Callable[..., tuple[Path, Dictionary]]) -> tuple[Path, Dictionary]:
    return make_dictionary()


@pytest.fixture
def make_transcoder(
    make_dictionary: Callable[..., tuple[Path, Dictionary]], model: LanguageModel, tmp_path: Path
) -> Callable[[tuple[str, ...]], Path]:
    """The random dictionary reading where it reads, and writing elsewhere."""

    def build(targets: tuple[str, ...]) -> Path:
        plain = make_dictionary()[1]
        described = tuple(Target(site=t, width=model.width(Site.parse(t)), scale=0.7) for t in targets)
        d_out = sum(target.width for target in described)
        weights = torch.randn(D_SAE, d_out, generator=torch.Generator().manual_seed(3))
        config = plain.config.model_copy(update={"targets": described})
        transcoder = replace(plain, W_dec=weights, b_dec=torch.zeros(d_out), config=config)
        transcoder.save(tmp_path / "run" / "dictionary", torch.randn(4, WIDTH))
        return tmp_path / "run"

    return build


@pytest.fixture(scope="session")
def config(random_run: tuple[Path, Dictionary], stories: CorpusConfig) -> IndexConfig:
    """All of the text; a buffer so small that the work is cut into many pieces."""
    return IndexConfig(run=random_run[0], corpus=stories, tokens=10**6, buffer=150, batch=8, quarter_examples=3)


@pytest.fixture(scope="session")
def index(config: IndexConfig, model: LanguageModel) -> FeatureIndex:
    return FeatureIndex(build_index(config, model))


@pytest.fixture(scope="session")
def truth(random_run: tuple[Path, Dictionary], stories: CorpusConfig, model: LanguageModel) -> Truth:
    dictionary = random_run[1]
    site = Site.parse(dictionary.site)
    parts = []
    for rows in pack(stories, model.tokenizer, POLICY, rows=8):  # pyright: ignore[reportArgumentType]
        activations, loss = model.activations_and_loss(rows.ids, [site])
        codes = dictionary.encode(activations[site][rows.keep]).to_dense()
        dense = torch.zeros(*rows.ids.shape, D_SAE)
        dense[rows.keep] = codes
        loss = torch.nn.functional.pad(loss, (0, 1), value=torch.nan)
        parts.append([t.flatten(0, 1).numpy() for t in (rows.ids, rows.documents, rows.keep, loss, dense)])
    return Truth(*(np.concatenate(column) for column in zip(*parts, strict=True)))
