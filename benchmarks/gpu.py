"""How fast is every Triton kernel? Each against the time its bytes need at the speed of a plain copy on this GPU.

    python benchmarks/gpu.py                                  # all sizes of issue 4; a table, and JSON with --json
    python benchmarks/gpu.py --sizes 24576,32,4096,768
    TRITON_INTERPRET=1 python benchmarks/gpu.py --device cpu --sizes 64,2,8,16      # does the script itself work?

A size is d_sae, k, tokens, width. Scores and tables are random. Bytes are the fewest that an operation must move
through device memory: each input read once, each output written once; a table that the L2 cache can't hold may cost
more. The products in bf16 and fp32 are cuBLAS's, for scale: a step can't be faster than one of them. It needs torch,
Triton and jaxtyping alone, so that it runs on a machine where nothing else is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saelab.kernels.backend import AdamStep
from saelab.kernels.triton.backend import TritonBackend

SIZES = "24576,32,4096,768 65536,32,8192,768 131072,64,8192,768 24576,32,4096,2304 131072,64,8192,2304"
FP32, INT64 = 4, 8
COPIED = 2**28  # numbers of the copy: far more than any cache holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES.split(), metavar="D_SAE,K,BATCH,WIDTH")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else "no GPU: these times say nothing"
    numbers = torch.empty(COPIED if on_gpu else 2**16, device=device)
    other = torch.randn_like(numbers)
    bandwidth = 2 * FP32 * numbers.numel() / milliseconds(lambda: numbers.copy_(other), on_gpu)  # bytes per ms
    del numbers, other
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "copy_GB_per_s": bandwidth / 1e6, "sizes": {}}
    print(f"{name}, torch {torch.__version__}; a copy moves {bandwidth / 1e6:,.0f} GB/s, counting reads and writes")
    for size in arguments.sizes:
        rows = measure(*map(int, size.split(",")), device=device)
        report["sizes"][size] = {key: {"ms": ms, "bytes": moved} for key, (ms, moved) in rows.items()}
        print(f"\n(d_sae, k, tokens, width) = ({size})\n{'':24}{'ms':>9}{'floor':>9}{'×':>7}")
        for key, (ms, moved) in rows.items():
            floor = moved / bandwidth
            print(f"{key:24}{ms:9.3f}" + (f"{floor:9.3f}{ms / floor:7.1f}" if moved else ""), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


def measure(F: int, k: int, B: int, d: int, device: torch.device) -> dict[str, tuple[float, int]]:
    """Milliseconds and least bytes by operation; 0 bytes where arithmetic is the limit."""
    backend, on_gpu = TritonBackend(), device.type == "cuda"
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    x, W, b, nnz = random(B, d), random(F, d), random(F), k * B
    rows: dict[str, tuple[float, int]] = {}

    def row(name: str, act: Callable[[], Any], moved: int = 0) -> None:
        rows[name] = milliseconds(act, on_gpu), moved

    x_half, W_half, b_half = x.bfloat16(), W.bfloat16(), b.bfloat16()
    row("product, bf16", lambda: backend.pre_activations(x_half, W_half, b_half, by_latent=False))
    row("product, fp32", lambda: backend.pre_activations(x, W, b, by_latent=False))
    budgets = torch.full((F,), k * B // F)
    scores = random(B, F)
    codes_bytes = nnz * (FP32 + INT64)
    row("select token", lambda: backend.select_token(scores, k), FP32 * B * F + codes_bytes)
    row("select mutual", lambda: backend.select_mutual(scores, nnz), FP32 * B * F + codes_bytes)
    codes = backend.select_mutual(scores, nnz)
    scores = scores.T.contiguous().T
    row("select feature", lambda: backend.select_feature(scores, budgets), FP32 * B * F + codes_bytes)
    del scores
    row("sort by latent", lambda: codes.with_values(codes.values).by_latent, 2 * nnz * INT64)
    _ = codes.by_latent, codes.row_ids
    row("decode", lambda: backend.decode(codes, W), FP32 * (F + B) * d + codes_bytes)
    row("gradient of values", lambda: backend.value_gradients(x, codes, W), FP32 * (F + B) * d + codes_bytes)
    row("weight gradient", lambda: backend.row_gradients(codes, codes.values, x), FP32 * (F + B) * d + codes_bytes)
    gradient, mean, square = random(F, d), random(F, d), random(F, d).square()
    step = AdamStep(10, 1e-4, 0.9, 0.999, 6.25e-10)
    for name, unit_rows in (("Adam, unit rows", True), ("Adam", False)):
        row(
            name, lambda unit_rows=unit_rows: backend.adam(W, gradient, mean, square, step, unit_rows), 7 * FP32 * F * d
        )
    return rows


def milliseconds(act: Callable[[], Any], on_gpu: bool) -> float:
    """Median by device events, the L2 cache cleared before each run; off the GPU one run by the clock."""
    if on_gpu:
        from triton.testing import do_bench

        median = do_bench(act, warmup=50, rep=200, return_mode="median")
        assert isinstance(median, float)
        return median
    started = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
