"""How much memory a language model takes: worked out from its configuration, before a weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saelab.errors import UserError
from saelab.models.devices import available_memory, resolve_dtype
from saelab.models.fingerprints import plain_tensors
from saelab.models.source import locate, skeleton

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ModelSize:
    """A model's size and what a forward pass takes, in bytes unless said otherwise."""

    parameters: int
    """Numbers, tied ones counted once."""
    weights_bytes: int
    """All of them in the dtype asked for. `LanguageModel.load` with `up_to` keeps fewer in memory."""
    number_bytes: int
    """One activation."""
    n_layers: int
    d_model: int
    d_attention: int
    """Queries, keys and values of one token together, in numbers."""
    d_mlp: int
    """Hidden width of a block's MLP; several times that where a token visits several experts."""
    n_heads: int
    d_vocab: int
    fused_attention: bool
    """Whether the scores of all pairs of positions are never held at once."""

    def pass_bytes(self, batch: int, context: int, layers: int | None = None, gradients: bool = False) -> int:
        """Peak of one forward pass over `batch` rows of `context` tokens, beyond the weights.

        An estimate (docs/models.md says how near): within a block the stream, what attention reads and four times the
        MLP's width are held; at the end the logits, and two more of them in fp32 for the losses.

        Args:
            layers: blocks that are run before the pass is stopped; None for all, and the logits and losses.
            gradients: with a backward pass through all blocks, whatever `layers` says.
        """
        tokens = batch * context
        scores = 0 if self.fused_attention else batch * self.n_heads * context**2 * (4 * self.number_bytes + 4)
        block = tokens * self.number_bytes * (4 * self.d_model + max(self.d_attention, 4 * self.d_mlp)) + scores
        if layers is not None and not gradients:
            return block
        logits = tokens * self.d_vocab * (self.number_bytes + 2 * 4)
        if not gradients:
            return block + logits
        kept = tokens * self.number_bytes * (6 * self.d_model + 2 * self.d_attention + 3 * self.d_mlp) + scores
        return self.n_layers * kept + block + logits


def model_size(name_or_path: str | Path, dtype: str = "float32", revision: str | None = None) -> ModelSize:
    """The size of the bundled model ("demo"), a local folder, or a model on the Hub, whose config.json alone is read.

    Raises:
        UserError: as `LanguageModel.load`.
    """
    return size_of(skeleton(locate(name_or_path, revision), resolve_dtype(dtype)))


def size_of(hf_model: PreTrainedModel) -> ModelSize:
    """The size of a model in memory, or of one that is nothing but shapes (meta tensors)."""
    config: Any = hf_model.config.get_text_config()
    heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    d_mlp = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    packed = [(name, value) for name, value in hf_model.state_dict().items() if not isinstance(value, Tensor)]
    inside = [tensor for name, value in packed for _, tensor in plain_tensors(name, value)]
    tensors = {id(tensor): tensor for tensor in (*hf_model.parameters(), *hf_model.buffers(), *inside)}.values()
    return ModelSize(
        parameters=sum(tensor.numel() for tensor in (*hf_model.parameters(), *inside)),
        weights_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        number_bytes=hf_model.dtype.itemsize,
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        d_attention=d_head * (heads + 2 * kv_heads),
        d_mlp=d_mlp * (getattr(config, "num_experts_per_tok", None) or 1),
        n_heads=heads,
        d_vocab=config.vocab_size,
        fused_attention=config._attn_implementation != "eager",
    )


def refuse_if_too_large(name: str, needed: int, device: torch.device) -> None:
    """A UserError when so many bytes of weights can't be held on the device."""
    free = available_memory(device)
    if needed > free:
        where = "memory" if device.type == "cpu" else f"the memory of {device}"
        raise UserError(
            f"the weights of model {name!r} take {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of {where} are free; "
            "a smaller dtype (bfloat16) or device_map auto may help"
        )
