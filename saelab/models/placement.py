"""Which parts of a model lie where: on a device, or on the disk until somebody asks for them.

A part on the disk is a meta tensor with a hook of accelerate's, which reads it from the safetensors file for the time
of one call. So a model of which only the lower layers are in memory still computes everything, the rest slowly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate.hooks import remove_hook_from_module
from torch import Tensor, nn
from transformers.integrations.accelerate import load_offloaded_parameter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DISK: Final = "disk"


def all_but_unneeded(skeleton: PreTrainedModel, up_to: int, device: torch.device) -> dict[str, str] | None:
    """A device map with the blocks after block `up_to` and an untied unembedding on the disk, the rest on `device`.

    None if nothing can be left out: all blocks are needed, or the model is no single stack of blocks.
    """
    left = _unneeded(skeleton, up_to)
    return dict(_places(skeleton, left, str(device))) if left else None


def resident_bytes(hf_model: PreTrainedModel, device_map: dict[str, str] | None) -> int:
    """Bytes of the weights that a device map keeps in memory, tied ones counted once; all of them without a map."""
    left = {name for name, place in (device_map or {}).items() if place == DISK}
    held = {
        id(tensor): tensor.numel() * tensor.element_size()
        for tensors in (hf_model.named_parameters(), hf_model.named_buffers())
        for name, tensor in tensors
        if not any(name.startswith(f"{part}.") for part in left)
    }
    return sum(held.values())


def unhook_what_is_in_memory(hf_model: PreTrainedModel) -> None:
    """Where there is one device, hooks that move tensors between devices only cost time."""
    for module in hf_model.modules():
        if hasattr(module, "_hf_hook") and not _on_disk(module):
            remove_hook_from_module(module)


def home_of(hf_model: PreTrainedModel) -> torch.device:
    """Where token ids go in: the device of the input embedding, or where it is computed if it lies elsewhere."""
    embedding: Any = hf_model.get_input_embeddings()
    hook = getattr(embedding, "_hf_hook", None)
    return torch.device(hook.execution_device) if _on_disk(embedding) else embedding.weight.device  # pyright: ignore[reportOptionalMemberAccess]


def value_of(hf_model: PreTrainedModel, name: str, value: Tensor) -> Tensor:
    """A tensor of the model's state dict; read from where it was put if it isn't in memory."""
    return load_offloaded_parameter(hf_model, name) if value.is_meta else value


def _on_disk(module: nn.Module) -> bool:
    return getattr(getattr(module, "_hf_hook", None), "offload", False)


def _unneeded(skeleton: PreTrainedModel, up_to: int) -> set[str]:
    config: Any = skeleton.config.get_text_config()
    stacks = [
        (name, module)
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers
    ]
    if not stacks:
        return set()
    name, blocks = max(stacks, key=lambda stack: sum(p.numel() for p in stack[1].parameters()))
    left = {f"{name}.{layer}" for layer in range(up_to + 1, len(blocks))}
    unembedding = skeleton.get_output_embeddings()
    if unembedding is not None and unembedding.weight is not skeleton.get_input_embeddings().weight:
        left |= {part for part, module in skeleton.named_modules() if module is unembedding}
    return left


def _places(module: nn.Module, left: set[str], device: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The largest parts that lie in one place, each with it."""
    for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield prefix + name, device
    for name, child in module.named_children():
        part = prefix + name
        if part in left:
            yield part, DISK
        elif any(inner.startswith(f"{part}.") for inner in left):
            yield from _places(child, left, device, f"{part}.")
        else:
            yield part, device
