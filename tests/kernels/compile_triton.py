"""Compile every Triton kernel for a GPU that need not be there, and print what each one takes of it as JSON.

    python tests/kernels/compile_triton.py 90 float32

The backend's own code runs, with each launch turned into a compilation for `sm_90`; what the kernels would have
computed stays zero. The interpreter forgives what the compiler refuses: this is the check that the kernels are Triton.
"""

import json
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver

from saelab.kernels.backend import AdamStep
from saelab.kernels.codes import SparseCodes
from saelab.kernels.triton import adam, feature, groups, mutual, products, sums, token
from saelab.kernels.triton.backend import TritonBackend

# Few rows, but as wide as real ones: tiles and registers are what they would be in training.
B, F, K, D = 64, 24576, 32, 768
MANY_TOKENS = 4096


def absent_gpu(capability: int) -> DriverBase:
    """What Triton asks of a driver before it compiles."""
    answers = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    return cast(DriverBase, answers)


def compile_all(dtype: torch.dtype) -> dict[str, Any]:
    """Kernels by name."""
    compiled: dict[str, Any] = {}

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
        compiled[kernel.__name__] = kernel.warmup(*arguments, grid=grid, num_warps=warps, **constants)

    with ExitStack() as patches:
        for module in (adam, feature, groups, mutual, products, sums, token):
            patches.enter_context(patch.object(module, "launch", launch))
        patches.enter_context(patch.object(torch, "empty", torch.zeros))  # what no kernel writes must still be indices
        run_everything(dtype)
    return compiled


def run_everything(dtype: torch.dtype) -> None:
    backend, scores = TritonBackend(), torch.randn(B, F).to(dtype)
    backend.select_token(scores, K)
    backend.select_mutual(scores, K * B)
    backend.select_feature(torch.randn(MANY_TOKENS, 64).to(dtype), torch.full((64,), 5))
    latents = torch.arange(B * K) % F
    codes = SparseCodes(torch.randn(B * K), latents, torch.arange(0, B * K + 1, K), F, (B,))
    W, x = torch.randn(F, D).to(dtype), torch.randn(B, D).to(dtype)
    backend.decode(codes, W)
    backend.row_gradients(codes, codes.values, x)
    backend.value_gradients(x, codes, W)
    for unit_rows in (True, False):
        step = AdamStep(1, 1e-3, 0.9, 0.999, 1e-8, torch.tensor(False))
        backend.adam(W.float(), W, W.float(), W.float(), step, unit_rows)


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, bytes of stack and of local memory (where spilled registers go)."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}


if __name__ == "__main__":
    driver.set_active(absent_gpu(int(sys.argv[1])))
    kernels = compile_all(getattr(torch, sys.argv[2]))
    report = {
        name: {**resources(kernel.asm["cubin"]), "widest_load": "v4.b32" in kernel.asm["ptx"]}
        for name, kernel in kernels.items()
    }
    print(json.dumps(report))
