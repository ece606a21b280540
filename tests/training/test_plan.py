"""What a training will take, said beforehand."""

from pathlib import Path

from saelab.config import load_config
from saelab.disk import RunPaths
from saelab.training import TrainConfig, train
from saelab.training.plan import plan


def test_the_plan_bounds_what_the_run_writes(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    settings = {
        "model": str(tiny_model), "site": "blocks.0.resid_post", "corpus.source": str(tiny_text), "device": "cpu",
        "policy.context": 32, "sae.d_sae": 64, "sae.k": 4, "tokens": 64 * 12, "batch": 64, "buffer": 256,
        "checkpoint_every": 64 * 3,
    }  # fmt: skip
    config = load_config(TrainConfig, None, settings)
    expected = plan(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # 12 steps of 64 tokens; W_enc and W_dec of 64 × 16, 64 + 16 biases: 2128 numbers.
    assert (expected.steps, expected.tokens, expected.parameters) == (12, 768, 2128)
    run = RunPaths(train(config, tmp_path / "run"))
    tensors = sum(path.stat().st_size for path in run.root.rglob("*.safetensors"))
    assert tensors < expected.disk_bytes + 20_000  # headers and statistics, which do not grow with d_in
    assert any(line.startswith("time") for line in expected.lines())
