"""From folders and names to models; whatever is wrong is one sentence."""

import json
import shutil
import subprocess
import sys
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, T5Config

from saelab.errors import UserError
from saelab.models import LanguageModel, Site, tokenizer_fingerprint
from saelab.models.devices import resolve_device, resolve_dtype

WORDS = ["<|endoftext|>", *(f"w{i}" for i in range(100))]


def word_tokenizer(words=WORDS):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=words[0], eos_token=words[0])


@pytest.fixture(scope="session")
def saved(tmp_path_factory, gpt2):
    """The tiny GPT-2 as a Hugging Face folder with fp16 weights."""
    folder = tmp_path_factory.mktemp("hf") / "model"
    gpt2.plain.half().save_pretrained(folder)
    gpt2.plain.float()
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_a_folder_with_fp16_weights_computes_in_fp32(saved, gpt2):
    model = LanguageModel.load(saved, device="cpu")
    assert (model.name, model.revision) == (str(saved), None)
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert model.bos_token_id == 0
    assert model.tokenizer is not None
    assert model.tokenizer("w3 w5")["input_ids"] == [4, 6]
    logits = model.logits(gpt2.tokens())
    assert logits.dtype == torch.float32
    assert_close(logits, gpt2.model.logits(gpt2.tokens()), atol=0.05, rtol=0)  # weights rounded to fp16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_come_in_the_dtype_asked_for(saved, gpt2, dtype):
    model = LanguageModel.load(str(saved), dtype=dtype, device="cpu")
    assert model.dtype == getattr(torch, dtype)
    assert model.activations(gpt2.tokens(), [Site(2, "z")])[Site(2, "z")].dtype == model.dtype
    assert model.loss(gpt2.tokens()).dtype == torch.float32


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("config.json", r"has no config\.json"),
        ("model.safetensors", "has no safetensors weights"),
        ("tokenizer.json", r"has no tokenizer\.json"),
    ],
)
def test_a_folder_that_lacks_a_file(folder, file, sentence):
    (folder / file).unlink()
    with pytest.raises(UserError, match=sentence):
        LanguageModel.load(folder)


def test_pickled_weights_are_not_read(folder, gpt2):
    (folder / "model.safetensors").unlink()
    torch.save(gpt2.plain.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="has no safetensors weights"):
        LanguageModel.load(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file(folder, file):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"^(model|the weights of model|the tokenizer of) .*model'") as caught:
        LanguageModel.load(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_whole(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 4}))
    with pytest.raises(UserError, match=r"has no weights for transformer\.h\.3"):
        LanguageModel.load(folder)


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 64}))
    with pytest.raises(
        UserError, match=r"transformer\.wpe\.weight of shape \[48, 32\] where its config\.json says \[64, 32\]"
    ):
        LanguageModel.load(folder)


def test_a_tokenizer_that_is_too_big_for_the_model(folder):
    word_tokenizer([*WORDS, "one", "more"]).save_pretrained(folder)
    with pytest.raises(UserError, match="has 103 tokens but the model embeds only 101"):
        LanguageModel.load(folder)


def test_what_is_no_causal_language_model(folder):
    T5Config().save_pretrained(folder)
    with pytest.raises(UserError, match="type 't5', which isn't a causal language model"):
        LanguageModel.load(folder)


def test_an_architecture_without_hook_points():
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    bert = BertForMaskedLM(BertConfig(vocab_size=20, **shape))
    bert.__class__ = type("HomemadeForCausalLM", (BertForMaskedLM,), {})
    with pytest.raises(UserError, match="architecture HomemadeForCausalLM, which isn't supported"):
        LanguageModel.from_hf(bert, name="homemade")


def test_names_that_lead_nowhere(no_hub, tmp_path):
    with pytest.raises(UserError, match="model 'gpt2-nowhere' can't be loaded"):
        LanguageModel.load("gpt2-nowhere")
    with pytest.raises(UserError, match="neither a folder nor a name on the Hugging Face Hub"):
        LanguageModel.load("two words")
    with pytest.raises(UserError, match="nothing-here does not exist"):
        LanguageModel.load(tmp_path / "nothing-here")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; give the folder"):
        LanguageModel.load(tmp_path / "file")


def test_settings_without_meaning(saved):
    with pytest.raises(UserError, match="dtype is 'int8'; it must be one of float32, bfloat16, float16"):
        LanguageModel.load(saved, dtype="int8")
    with pytest.raises(UserError, match="device is 'gpu'; it must be auto, cpu"):
        LanguageModel.load(saved, device="gpu")
    with pytest.raises(UserError, match="revision 'main' has no meaning for the folder"):
        LanguageModel.load(saved, revision="main")


def test_devices_and_dtypes(monkeypatch):
    assert resolve_dtype("bfloat16") is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device is 'cuda:1', but this machine has cpu"):
        resolve_device("cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_fingerprints_tell_models_apart_and_last(saved, folder, gpt2):
    model, again = LanguageModel.load(saved, device="cpu"), LanguageModel.load(folder, device="cpu")
    assert model.fingerprint == again.fingerprint
    assert model.tokenizer_fingerprint == again.tokenizer_fingerprint
    assert len(model.fingerprint) == len(str(model.tokenizer_fingerprint)) == 64
    assert LanguageModel.load(saved, dtype="bfloat16", device="cpu").fingerprint == model.fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-5}))
    assert LanguageModel.load(folder, device="cpu").fingerprint != model.fingerprint


def test_a_tokenizers_fingerprint_is_its_content():
    tokenizer = word_tokenizer()
    fingerprint = tokenizer_fingerprint(tokenizer)
    tokenizer("w1 w2 w3", truncation=True, max_length=2)  # leaves a setting behind in the tokenizer
    assert tokenizer_fingerprint(tokenizer) == fingerprint
    assert tokenizer_fingerprint(word_tokenizer([*WORDS[:-1], "other"])) != fingerprint


def test_a_model_without_a_tokenizer(gpt2):
    assert gpt2.model.tokenizer is None
    assert gpt2.model.tokenizer_fingerprint is None
    assert gpt2.model.bos_token_id is None  # GPT-2's 50256 isn't among 101 tokens


def test_reading_a_site_needs_no_torch():
    code = "import sys; from saelab.models import Site; Site.parse('blocks.0.resid_pre'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
