"""The Triton kernels compile for real GPUs, without one: what the interpreter lets pass, the compiler may not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")

KERNELS = {
    "_maxima_kernel", "_candidates_kernel", "_best_groups_kernel", "_best_scores_kernel", "_count_kernel",
    "_compact_kernel", "_best_tokens_kernel", "_pieces_kernel", "_add_rest_kernel", "_products_kernel", "_adam_kernel",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "dtype"), [("80", "bfloat16"), ("90", "float32")])
def test_every_kernel_compiles_without_spilling(capability: str, dtype: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("compile_triton.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, script, capability, dtype], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert kernels.keys() == KERNELS
    for name, takes in kernels.items():
        assert takes["STACK"] == takes["LOCAL"] == 0, f"{name} spills registers: {takes}"
        assert takes["REG"] <= 128, f"{name} takes {takes['REG']} registers: too few programs fit side by side"
        assert takes["widest_load"], f"{name} does not load 16 bytes at a time"
