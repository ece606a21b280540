"""A published dictionary in SAELens itself, by the line that its card says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.hub.server.local_hub import TOKEN, LocalHub
from tests.hub.test_snippets import dictionary

pytest.importorskip("sae_lens")

LOAD = """
import sys, warnings
warnings.simplefilter("ignore")
from safetensors.torch import load_file
from sae_lens import SAE

sae = SAE.from_pretrained("alice/saes", sys.argv[1])
golden = load_file(sys.argv[2])
x_hat = sae.decode(sae.encode(golden["x"]))
print(float((x_hat - golden["x_hat"]).norm() / golden["x_hat"].norm()))
"""


@pytest.mark.parametrize("kind", ["token", "mutual", "gated"])
def test_saelens_loads_it_from_the_hub(tmp_path: Path, kind: str) -> None:
    from saelab.dictionaries.config import Gated, MutualChoice, TokenChoice

    made = dictionary({"token": TokenChoice(), "mutual": MutualChoice(), "gated": Gated()}[kind])
    run, hub = tmp_path / "run", LocalHub()
    made.save(run / "dictionary", torch.randn(16, made.d_in, generator=torch.Generator().manual_seed(0)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip

    def process(*words: object) -> str:
        words = (sys.executable, *words)
        done = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with hub.running():
        process("-m", "saelab", "publish", run, "alice/saes", "--force")
        folder = f"{made.site}/run/saelens"
        error = float(process("-c", LOAD, folder, run / "dictionary/golden.safetensors").split()[-1])
    assert error < 1e-5
