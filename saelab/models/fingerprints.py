"""Short names for what a result depends on: equal fingerprints, equal tokenizer or weights."""

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from saelab.errors import UserError
from saelab.models.placement import value_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLES: Final = 1024  # values of each tensor that go into a model's fingerprint
_VOLATILE: Final = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures", "use_cache")


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """SHA-256 (hex) of everything that decides which ids a text becomes; truncation and padding settings don't count.

    Raises:
        UserError: the tokenizer has no serialisable form (not a "fast" one).
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"tokenizer {type(tokenizer).__name__} isn't a fast one; a model needs a tokenizer.json")
    content = json.loads(backend.to_str())
    for setting in ("truncation", "padding"):
        content.pop(setting, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def model_fingerprint(hf_model: "PreTrainedModel") -> str:
    """SHA-256 (hex) of a model's configuration and of evenly spaced values of every weight, rounded to bfloat16.

    Rounding makes it the same for weights loaded in fp32 and in bf16, and in fp16 if the file holds fp16 (fp32 weights
    rounded to fp16 first may round on to another bf16). Weights on the disk are read from there, so it is the same for
    a model that is only partly in memory. It reads about `SAMPLES` values of a tensor, so it costs
    milliseconds; it tells models apart, not tampering.
    """
    config = {key: value for key, value in hf_model.config.to_diff_dict().items() if key not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(hf_model.state_dict().items()):
        whole = value_of(hf_model, name, value) if isinstance(value, Tensor) else value
        for part, tensor in plain_tensors(name, whole):
            flat = tensor.reshape(-1)
            sample = flat[:: max(1, flat.numel() // SAMPLES)].cpu()
            sample = sample.bfloat16() if sample.is_floating_point() else sample
            digest.update(f"{part} {tuple(tensor.shape)}".encode())
            digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors that an entry of a state dict is made of: quantised layers have packed ones, and tuples."""
    if isinstance(value, tuple | list):
        for number, part in enumerate(value):
            yield from plain_tensors(f"{name}.{number}", part)
    elif not isinstance(value, Tensor):
        return  # a dtype, a version
    elif value.is_quantized:
        per_tensor = value.qscheme() == torch.per_tensor_affine
        yield from plain_tensors(f"{name}.int", value.int_repr())
        yield f"{name}.scale", torch.tensor(value.q_scale()) if per_tensor else value.q_per_channel_scales()
    elif is_traceable_wrapper_subclass(value):
        for part in value.__tensor_flatten__()[0]:
            yield from plain_tensors(f"{name}.{part}", getattr(value, part))
    else:
        yield name, value
