"""What a model takes: told from its config, and near to what the process takes when it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from saelab.disk import bundled
from saelab.errors import UserError
from saelab.models import LanguageModel
from saelab.models import devices as devices_module
from saelab.models import size as size_module
from saelab.models.devices import available_memory
from saelab.models.size import model_size, size_of

CPU = torch.device("cpu")
NEAR = 0.25  # share by which an estimate may miss
PEAKS = """
import ctypes, gc, json, torch
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
from saelab.models import LanguageModel, Site

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

def peak(act):
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    act()
    return status("VmHWM") - before

model = LanguageModel.from_hf(GPT2LMHeadModel(GPT2Config(n_layer=4)), name="shape")
site, tokens = Site(2, "resid_post"), torch.zeros(8, 128, dtype=torch.long)
model.loss(tokens[:1, :8])
stopped, whole = peak(lambda: model.activations(tokens, [site])), peak(lambda: model.loss(tokens))
print(json.dumps({"stopped": stopped, "whole": whole}))
"""


def meta(hf_class, config):
    with torch.device("meta"):
        return hf_class(config)


def test_gpt2_smalls_numbers_are_the_ones_that_everybody_quotes():
    size = size_of(meta(GPT2LMHeadModel, GPT2Config()))
    assert size.parameters == 124_439_808  # the unembedding is the embedding
    assert size.weights_bytes == 4 * size.parameters
    assert (size.n_layers, size.d_model, size.d_attention, size.d_mlp) == (12, 768, 3 * 768, 3072)


def test_grouped_queries_and_a_gated_mlp_by_hand():
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64,
    )  # fmt: skip
    size = size_of(meta(LlamaForCausalLM, config))
    block = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32
    assert size.parameters == 3 * block + 32 + 2 * 100 * 32
    assert size.d_attention == 32 + 16 + 16


def test_the_size_before_loading_is_the_size_after():
    before = model_size("demo", "bfloat16")
    loaded = LanguageModel.load("demo", dtype="bfloat16", device="cpu")
    assert before == loaded.size
    weights = next(bundled("artifacts/demo-model").glob("*.safetensors")).stat().st_size  # 16 bits a number
    assert before.weights_bytes == pytest.approx(weights, rel=0.01)
    assert model_size("demo").weights_bytes == pytest.approx(2 * before.weights_bytes, rel=0.01)


def test_a_pass_grows_with_what_it_is_asked_for():
    size = size_of(meta(GPT2LMHeadModel, GPT2Config()))
    stopped = size.pass_bytes(8, 128, layers=6)
    assert size.pass_bytes(16, 128, layers=6) == 2 * stopped
    assert stopped < size.pass_bytes(8, 128) < size.pass_bytes(8, 128, gradients=True)
    logits = 8 * 128 * 50257 * 4
    assert size.pass_bytes(8, 128) - stopped == 3 * logits


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux' /proc")
def test_the_estimate_of_a_pass_is_near_what_a_process_takes():
    """GPT-2 small's width, in a process of its own."""
    environment = {"OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True, env=environment)
    measured = json.loads(done.stdout)
    size = size_of(meta(GPT2LMHeadModel, GPT2Config(n_layer=4)))
    assert size.pass_bytes(8, 128, layers=3) == pytest.approx(measured["stopped"], rel=NEAR)
    assert size.pass_bytes(8, 128) == pytest.approx(measured["whole"], rel=NEAR)


def test_what_can_not_fit_is_refused_before_it_is_loaded(monkeypatch):
    needed = model_size("demo").weights_bytes
    monkeypatch.setattr(size_module, "available_memory", lambda device: needed)
    LanguageModel.load("demo", device="cpu")
    monkeypatch.setattr(size_module, "available_memory", lambda device: needed - 1)
    with pytest.raises(UserError, match=r"the weights of model 'demo' take 0\.0 GB, but 0\.0 GB of memory are free"):
        LanguageModel.load("demo", device="cpu")
    LanguageModel.load("demo", device="cpu", dtype="bfloat16")


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    machine = available_memory(CPU)
    monkeypatch.setattr(devices_module, "_CGROUP", tmp_path)
    assert available_memory(CPU) == pytest.approx(machine, rel=0.2)
    for name, text in {"max": "5000", "current": "3000", "stat": "anon 2000\ninactive_file 700"}.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert available_memory(CPU) == 5000 - 3000 + 700  # cached files give way
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(CPU) == pytest.approx(machine, rel=0.2)
