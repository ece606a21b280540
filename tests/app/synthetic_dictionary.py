"""A random dictionary that fits a model, for the pages that compute: of any size, and loadable like a trained one."""

from __future__ import annotations

import shutil

import torch

from saelab.corpora.policy import TokenPolicy
from saelab.dictionaries.artifact import save
from saelab.dictionaries.config import DictionaryConfig
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths
from saelab.models import LanguageModel
from tests.app.synthetic import Shape, dictionary_config


def write_dictionary(run: RunPaths, shape: Shape, model: LanguageModel) -> None:
    """TopK with encoder and decoder rows alike, in the place of the bare decoder that `write_run` writes."""
    width = model.d_model
    config = DictionaryConfig.model_validate(
        dictionary_config(shape) | {
            "d_in": width, "model_fingerprint": model.fingerprint,
            "tokenizer_fingerprint": model.tokenizer_fingerprint, "policy": TokenPolicy().model_dump(mode="json"),
        }
    )  # fmt: skip
    generator = torch.Generator().manual_seed(shape.seed)
    rows = torch.randn(shape.d_sae, width, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    dictionary = Dictionary(
        W_enc=rows, W_dec=rows, b_enc=torch.zeros(shape.d_sae), b_dec=torch.zeros(width), threshold=torch.empty(0),
        config=config,
    )  # fmt: skip
    shutil.rmtree(run.dictionary)
    save(dictionary, run.dictionary, torch.randn(8, width, generator=generator))
