"""Whether Triton kernels can run, and if not, why."""

from __future__ import annotations

import torch

LEAST_CAPABILITY = (8, 0)  # Ampere: the first with bf16


def obstacle(device: torch.device | str) -> str:
    """What keeps Triton kernels from running on tensors of `device`, as a clause; empty when nothing does."""
    device = torch.device(device)
    try:
        from triton import knobs
    except ImportError:
        return "triton is not installed"
    if device.type == "cpu" and knobs.runtime.interpret:
        return ""  # TRITON_INTERPRET=1, as in the tests
    if device.type != "cuda" or not torch.version.cuda:
        return f"it needs an NVIDIA GPU, not {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return f"it needs compute capability 8.0, and {device} has {capability[0]}.{capability[1]}"
    return ""
