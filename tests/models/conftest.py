"""Small random models of each family, as saelab opens them and as plain Hugging Face modules, side by side."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from saelab.models import LanguageModel


def same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Tap:
    """Where plain Hugging Face code has a site: a module's "in" or "out", and the part of that tensor."""

    module: nn.Module
    side: str
    part: Callable[[Tensor], Tensor] = same


def gpt2_taps(hf: Any, layer: int) -> dict[str, Tap]:
    block, d = hf.transformer.h[layer], hf.config.n_embd
    fused = {name: slice(i * d, (i + 1) * d) for i, name in enumerate("qkv")}
    return {
        "resid_pre": Tap(block, "in"),
        "resid_mid": Tap(block.ln_2, "in"),
        "resid_post": Tap(block, "out"),
        "attn_out": Tap(block.attn, "out"),
        "mlp_out": Tap(block.mlp, "out"),
        "z": Tap(block.attn.c_proj, "in"),
        **{name: Tap(block.attn.c_attn, "out", lambda x, s=s: x[..., s]) for name, s in fused.items()},
    }


def llama_taps(hf: Any, layer: int) -> dict[str, Tap]:
    block = hf.model.layers[layer]
    return {
        "resid_pre": Tap(block, "in"),
        "resid_mid": Tap(block.post_attention_layernorm, "in"),
        "resid_post": Tap(block, "out"),
        "attn_out": Tap(block.self_attn, "out"),
        "mlp_out": Tap(block.mlp, "out"),
        "z": Tap(block.self_attn.o_proj, "in"),
        **{name: Tap(getattr(block.self_attn, f"{name}_proj"), "out") for name in "qkv"},
    }


def gemma2_taps(hf: Any, layer: int) -> dict[str, Tap]:
    block = hf.model.layers[layer]
    return llama_taps(hf, layer) | {
        "resid_mid": Tap(block.pre_feedforward_layernorm, "in"),
        "attn_out": Tap(block.post_attention_layernorm, "out"),  # what is added to the stream: after the post-norm
        "mlp_out": Tap(block.post_feedforward_layernorm, "out"),
    }


def neox_taps(hf: Any, layer: int) -> dict[str, Tap]:
    block, heads = hf.gpt_neox.layers[layer], hf.config.num_attention_heads

    def part(index: int) -> Callable[[Tensor], Tensor]:  # the fused projection is [head, (q, k, v), d_head]
        return lambda x: x.unflatten(-1, (heads, 3, -1))[..., index, :].flatten(-2)

    taps = {
        "resid_pre": Tap(block, "in"),
        "resid_mid": Tap(block.post_attention_layernorm, "in"),
        "resid_post": Tap(block, "out"),
        "attn_out": Tap(block.attention, "out"),
        "mlp_out": Tap(block.mlp, "out"),
        "z": Tap(block.attention.dense, "in"),
        **{name: Tap(block.attention.query_key_value, "out", part(i)) for i, name in enumerate("qkv")},
    }
    if hf.config.use_parallel_residual:
        del taps["resid_mid"]  # both branches read the block's input
    return taps


@dataclass(frozen=True)
class Pair:
    """One model twice, with equal weights: through saelab's door, and untouched."""

    model: LanguageModel
    plain: Any
    taps: Callable[[Any, int], dict[str, Tap]]

    def tokens(self, rows: int = 2, length: int = 12) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return torch.randint(0, self.model.d_vocab, (rows, length), generator=generator)

    def recorded(self, tokens: Tensor, layer: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Plain Hugging Face hooks and autograd: kind → activation, kind → gradient of the summed loss, losses."""
        seen: dict[tuple[nn.Module, str], Tensor] = {}
        taps = self.taps(self.plain, layer)
        handles = [tap.module.register_forward_hook(_recorder(tap, seen), with_kwargs=True) for tap in taps.values()]
        try:
            logits = self.plain(tokens).logits.float()
        finally:
            for handle in handles:
                handle.remove()
        losses = -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        found = dict(zip(seen, torch.autograd.grad(losses.sum(), list(seen.values())), strict=True))
        activations = {kind: tap.part(seen[tap.module, tap.side]).detach() for kind, tap in taps.items()}
        gradients = {kind: tap.part(found[tap.module, tap.side]) for kind, tap in taps.items()}
        return activations, gradients, losses.detach()


def _recorder(tap: Tap, seen: dict[tuple[nn.Module, str], Tensor]) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if tap.side == "in":
            x = args[0] if args else kwargs["hidden_states"]
        else:
            x = output[0] if isinstance(output, tuple) else output
        seen[tap.module, tap.side] = x

    return record


def pair(hf: PreTrainedModel, taps: Callable[[Any, int], dict[str, Tap]], name: str) -> Pair:
    """Shake every weight (norm gains and biases too, so that leaving one out shows), then open a copy."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    hf.eval()
    hf.generation_config.eos_token_id = None  # ours always generates as many tokens as asked for
    return Pair(LanguageModel.from_hf(copy.deepcopy(hf), name=name), hf, taps)


def tiny_gpt2(**changes: Any) -> GPT2LMHeadModel:
    shape: dict[str, Any] = {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 48, "vocab_size": 101}
    return GPT2LMHeadModel(GPT2Config(**(shape | changes)))


def tiny_neox(**changes: Any) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=101,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=48,
            **changes,
        )
    )


GROUPED: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
}
FAMILIES: dict[str, Callable[[], Pair]] = {
    "gpt2": lambda: pair(tiny_gpt2(layer_norm_epsilon=1e-3), gpt2_taps, "tiny-gpt2"),
    "llama": lambda: pair(LlamaForCausalLM(LlamaConfig(**GROUPED)), llama_taps, "tiny-llama"),
    # d_head is not d_model / n_heads, the window is shorter than the rows, scores and logits are soft-capped
    "gemma2": lambda: pair(
        Gemma2ForCausalLM(Gemma2Config(head_dim=12, query_pre_attn_scalar=12, sliding_window=6, **GROUPED)),
        gemma2_taps,
        "tiny-gemma2",
    ),
    "neox": lambda: pair(tiny_neox(), neox_taps, "tiny-neox"),
    "neox-sequential": lambda: pair(tiny_neox(use_parallel_residual=False), neox_taps, "tiny-neox-sequential"),
}


def built(name: str) -> Pair:
    torch.manual_seed(0)
    return FAMILIES[name]()


@pytest.fixture(scope="session", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> Pair:
    return built(request.param)


@pytest.fixture(scope="session")
def gpt2() -> Pair:
    return built("gpt2")


@pytest.fixture(scope="session")
def llama() -> Pair:
    return built("llama")


@pytest.fixture(scope="session")
def parallel_neox() -> Pair:
    return built("neox")


@pytest.fixture(scope="session")
def gpt2_small() -> Pair:
    """GPT-2 small's shape, random weights."""
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config()).eval()
    return Pair(LanguageModel.from_hf(copy.deepcopy(hf), name="gpt2-small-shape"), hf, gpt2_taps)
