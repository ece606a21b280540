"""transformer-lens' `TransformerBridge`, as saelab uses it. No other file imports transformer-lens.

The bridge puts hook points into a Hugging Face model, in place, and leaves its weights as they are (raw: no folded
norms, no centring). It computes attention step by step, so that scores and patterns can be hooked, which costs a
quarter to a third of the speed at contexts of 512 and more. Here nothing hooks scores, so a layer in which nothing
replaces q, k, v or z runs Hugging Face's own fused attention instead. Where they are read, the stepwise attention runs
beside it, for the reader alone: what is asked for changes no bit of anything else.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import Any, NamedTuple

import torch
from accelerate.utils import align_module_device
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    JointQKVAttentionBridge,
    JointQKVPositionEmbeddingsAttentionBridge,
    NormalizationBridge,
    PositionEmbeddingsAttentionBridge,
    RMSNormalizationBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import DynamicCache, PreTrainedModel
from transformers.activations import NewGELUActivation

from saelab.errors import UserError
from saelab.models.site import HEAD_KINDS, Site
from saelab.models.taps import ForwardStopped, Intervention, Span, Taps

# Attention that Hugging Face's own module computes alike. Subclasses have their own reasons and stay as they are.
_FUSABLE = (
    AttentionBridge,
    JointQKVAttentionBridge,
    JointQKVPositionEmbeddingsAttentionBridge,
    PositionEmbeddingsAttentionBridge,
)
# Norms that the bridge computes step by step, so that scales can be hooked. Hugging Face's own give the same.
_NORMS = (NormalizationBridge, RMSNormalizationBridge)


class Outcome(NamedTuple):
    """What a forward pass leaves."""

    logits: Any  # [batch, position, d_vocab]; None if it was stopped early
    captured: dict[str, Tensor]  # hook name → whole tensor, for every site asked for
    cache: Any  # keys and values; None unless asked for


class Bridge:
    """A Hugging Face model with hook points: shapes, which sites it has, and one forward pass with taps.

    Args:
        hf_model: a causal language model, already on its device and in its dtype. It is changed in place and must
            not be used any more.
        device: where interventions compute.
        attention: the implementation that the model was loaded with, if somebody chose one.

    Raises:
        UserError: transformer-lens has no adapter for the architecture, or it isn't a plain stack of blocks.
    """

    def __init__(
        self, hf_model: PreTrainedModel, name: str, device: torch.device, attention: str | None = None
    ) -> None:
        self._name = name
        self._device = device
        self._lock = RLock()  # the thread that holds it may ask again, and is then refused in words
        self._running = False
        self._mean_unembedding: Tensor | None = None  # over tokens, made when first asked for
        hf_model.eval()
        _fuse_gelu(hf_model)
        architecture = type(hf_model).__name__
        try:
            self._bridge: Any = build_bridge_from_module(
                hf_model, architecture, hf_config=hf_model.config, tokenizer=None, model_name=name
            )
        except ValueError as error:
            if "Unsupported architecture" not in str(error):
                raise
            raise UserError(f"model {name!r} has the architecture {architecture}, which isn't supported") from error
        if not hasattr(self._bridge, "blocks") or Site(0, "resid_post").hook_name not in self._bridge.hook_dict:
            raise UserError(f"model {name!r} ({architecture}) isn't a plain stack of transformer blocks")
        for parameter in torch.nn.Module.parameters(self._bridge):
            parameter.requires_grad_(False)  # only activations are ever differentiated
        self._hook_names = frozenset(self._bridge.hook_dict)
        for block in self._bridge.blocks:
            own: Any = getattr(block, "attn", None)
            if type(own) in _FUSABLE:  # by __dict__: the bridge's __setattr__ passes names on to the HF module
                own.__dict__["forward"] = partial(AttentionBridge.forward, own)
        for module in nn.Module.modules(self._bridge):
            if isinstance(module, GeneralizedComponent) and type(module) in _NORMS:
                module.__dict__["forward"] = partial(GeneralizedComponent.forward, module)
        if attention is not None:  # the adapters of some architectures set another
            hf_model.config.get_text_config()._attn_implementation = attention

        shape = self._bridge.cfg
        self.n_layers: int = shape.n_layers
        self.d_model: int = shape.d_model
        self.n_heads: int = shape.n_heads
        self.n_kv_heads: int = shape.n_key_value_heads or shape.n_heads
        self.d_head: int = shape.d_head
        self.n_ctx: int = shape.n_ctx
        self.d_vocab: int = shape.d_vocab

    def has(self, site: Site) -> bool:
        """Whether the model has this activation (a block with parallel attention and MLP has no resid_mid)."""
        return site.hook_name in self._hook_names

    def run(
        self,
        tokens: Int[Tensor, "batch position"],
        interventions: Sequence[Intervention] = (),
        sites: Sequence[Site] = (),
        stop: bool = False,
        gradients: Sequence[Site] = (),
        cache: Any = None,
        use_cache: bool = False,
        prompt: int | None = None,
    ) -> Outcome:
        """One forward pass.

        Args:
            tokens: those that `cache` does not hold yet.
            prompt: length of what is continued; left out, all that there is.
        """
        offset, length = (0 if cache is None else cache.get_seq_length()), tokens.shape[1]
        span = Span(offset, length, offset + length if prompt is None else prompt)
        taps = Taps(interventions, sites, self.d_head, span, self._device, stop=stop, gradients=gradients)
        read = {site.layer for site in sites if site.kind in HEAD_KINDS}
        replaced = {i.site.layer for i in interventions if i.site.kind in HEAD_KINDS}
        replaced |= read & {i.site.layer for i in interventions if i.site.kind == "attn_out"}  # a link would bypass it
        replaced |= read if use_cache else set()  # attention that is computed twice would enter the cache twice
        logits: Any = None
        new_cache: Any = None
        attention = self._stepwise_attention(replaced, read - replaced, taps)
        with self._alone(), attention, self._bridge.hooks(fwd_hooks=taps.hooks()):
            try:
                if use_cache:
                    logits, new_cache = self._bridge(
                        tokens, return_type="logits_and_cache", past_key_values=cache, use_cache=True
                    )
                else:
                    logits = self._bridge(tokens, return_type="logits", use_cache=False)
            except ForwardStopped:
                pass
        if taps.missed:
            raise RuntimeError(f"internal error: {sorted(taps.missed)} never arrived from the bridge")
        return Outcome(logits, taps.captured, new_cache)

    @torch.no_grad()
    def direct_logits(self, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
        """Directions through the final norm's gain (centred first if it is a LayerNorm) and the unembedding, in fp32.

        The norm's scale, which depends on the activation, and all biases are left out.
        """
        directions = directions.float()
        if not self._bridge.ln_final.uses_rms_norm:
            directions = directions - directions.mean(-1, keepdim=True)
        with self._unembedding() as weight:
            return (directions * self._final_gain().to(directions)) @ weight.to(directions).T

    @torch.no_grad()
    def embeddings(self, tokens: Int[Tensor, "n"]) -> Float[Tensor, "n d_model"]:
        """Rows of the embedding, fp32, without positions and without what some models multiply them by."""
        embedding = self._bridge.embed.original_component
        with align_module_device(embedding):
            return embedding.weight[tokens.to(embedding.weight.device)].float().to(self._device)

    @torch.no_grad()
    def logit_directions(self, tokens: Int[Tensor, "n"]) -> Float[Tensor, "n d_model"]:
        """Residual directions whose dot product with r is r's `direct_logits` of a token less their mean over all."""
        with self._unembedding() as weight:
            if self._mean_unembedding is None:
                self._mean_unembedding = weight.mean(0, dtype=torch.float32)
            difference = weight[tokens.to(weight.device)].float() - self._mean_unembedding
        directions = difference.to(self._device) * self._final_gain().to(self._device)
        return directions if self._bridge.ln_final.uses_rms_norm else directions - directions.mean(-1, keepdim=True)

    @torch.no_grad()
    def final_scale(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """What the final norm multiplies the (centred) stream `x` by besides its gain: 1 / (std or rms), fp32.

        Read off the norm's own output, so that no architecture's epsilon needs to be known by name.
        """
        norm = self._bridge.ln_final.original_component
        with align_module_device(norm):
            arrived = x.to(next(norm.parameters()).device)
            output = norm(arrived).float()
            bias = getattr(norm, "bias", None)
            output = output if bias is None else output - bias.float()
        centred = arrived.float()
        if not self._bridge.ln_final.uses_rms_norm:
            centred = centred - centred.mean(-1, keepdim=True)
        unscaled = centred * self._final_gain().to(centred)
        return ((output * unscaled).sum(-1) / unscaled.square().sum(-1)).to(self._device)

    def _final_gain(self) -> Float[Tensor, "d_model"]:
        norm = self._bridge.ln_final
        with align_module_device(norm.original_component):  # it may lie on the disk, or on another device
            gain = norm.original_component.weight.float()
        return gain + 1 if norm.uses_weight_offset else gain  # Gemma stores gain - 1

    @contextmanager
    def _unembedding(self) -> Iterator[Float[Tensor, "d_vocab d_model"]]:
        unembedding = self._bridge.unembed.original_component
        with align_module_device(unembedding):
            weight = unembedding.weight
            if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.shape[-1] != self.d_model:
                raise UserError(f"the unembedding of model {self._name!r} is quantised; direct logits need its numbers")
            yield weight

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hooks hang on the model: one pass at a time, whichever thread it comes from, and none inside another."""
        with self._lock:
            if self._running:
                raise RuntimeError(f"model {self._name!r} was run from inside its own forward pass, by an intervention")
            self._running = True
            try:
                yield
            finally:
                self._running = False

    @contextmanager
    def _stepwise_attention(self, layers: Collection[int], beside: Collection[int], taps: Taps) -> Iterator[None]:
        """Let `layers` compute attention the bridge's way, step by step, through the hook points of q, k, v, z; and
        let those of `beside` do so beside their fused attention."""
        blocks = self._bridge.blocks
        fused = {layer: blocks[layer].attn.__dict__.pop("forward", None) for layer in (*layers, *beside)}
        try:
            for layer in beside:
                if fused[layer] is not None:
                    blocks[layer].attn.__dict__["forward"] = partial(_attend_twice, blocks[layer].attn, layer, taps)
            yield
        finally:
            for layer, forward in fused.items():
                if forward is not None:
                    blocks[layer].attn.__dict__["forward"] = forward


def whole_cache() -> DynamicCache:
    """An empty cache that keeps every position, of layers with a sliding window too, so that it can be `cut`."""
    return DynamicCache()


def cut(cache: DynamicCache, length: int, rows: Int[Tensor, "n"]) -> DynamicCache:
    """A copy of a whole cache: the first `length` positions of some rows."""
    layers: Any = cache.layers
    parts = [(layer.keys[:, :, :length], layer.values[:, :, :length]) for layer in layers]
    return DynamicCache([(keys[rows.to(keys.device)], values[rows.to(values.device)]) for keys, values in parts])


def _fuse_gelu(hf_model: PreTrainedModel) -> None:
    """GPT-2's activation function is eight passes over memory, a quarter of a block's time; PyTorch has it in one."""
    for module in list(hf_model.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))


def _attend_twice(attention: Any, layer: int, taps: Taps, *args: Any, **kwargs: Any) -> Any:
    """The fused attention's output; q, k, v and z are read from the stepwise one.

    The second is given no graph, and its output less itself is added, 0 to the bit: so gradients reach q, k, v and z
    through it, and everything before the layer through the first, as if nobody had looked.
    """
    with taps.ignoring({Site(layer, kind).hook_name for kind in HEAD_KINDS}):
        output = AttentionBridge.forward(attention, *args, **kwargs)
    again = {key: _without_graph(value) for key, value in kwargs.items()}
    beside = type(attention).forward(attention, *map(_without_graph, args), **again)
    beside = beside[0] if isinstance(beside, tuple) else beside
    if not beside.requires_grad:
        return output
    zero = beside - beside.detach()
    return (output[0] + zero, *output[1:]) if isinstance(output, tuple) else output + zero


def _without_graph(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
