"""What trainings will take, said beforehand."""

from pathlib import Path
from typing import Any

import pytest

from saelab.config import load_config
from saelab.disk import RunPaths
from saelab.ranks import Ranks
from saelab.training import TrainConfig, train_all
from saelab.training.parallel import ParallelConfig
from saelab.training.plan import plan


@pytest.fixture
def settings(tiny_model: Path, tiny_text: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_model), "site": "blocks.0.resid_post", "corpus.source": str(tiny_text), "device": "cpu",
        "policy.context": 32, "sae.d_sae": 64, "sae.k": 4, "tokens": 64 * 12, "batch": 64, "buffer": 256,
        "checkpoint_every": 64 * 3,
    }  # fmt: skip


def test_the_plan_bounds_what_the_runs_write(settings: dict[str, Any], tmp_path: Path) -> None:
    kinds = {"topk": {}, "gated": {"sae.preset": "gated"}, "transcoder": {"target": "blocks.1.mlp_out"}}
    configs = {tmp_path / name: load_config(TrainConfig, None, settings | more) for name, more in kinds.items()}
    expected = plan(configs)
    assert not any(run.exists() for run in configs)
    # 12 steps of 64 tokens; W_enc and W_dec of 64 × 16, 64 + 16 biases: 2128 numbers.
    assert [(run.name, run.steps, run.tokens, run.size.parameters) for run in expected.runs] == [
        (name, 12, 768, 2128) for name in kinds
    ]
    train_all(configs)
    for run, directory in zip(expected.runs, configs, strict=True):
        tensors = sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
        assert tensors < run.size.disk_bytes + 20_000  # headers, which do not grow
        assert len(list(RunPaths(directory).checkpoints.iterdir())) == 2
    assert any(line.startswith("time") for line in expected.lines())


def test_what_runs_share_is_counted_once(settings: dict[str, Any], tmp_path: Path) -> None:
    one, other = (load_config(TrainConfig, None, settings | {"sae.k": k}) for k in (2, 4))
    alone, together, apart = (
        plan({tmp_path / "one": one}),
        plan({tmp_path / "one": one, tmp_path / "other": other}),
        plan({tmp_path / "one": one, tmp_path / "other": other}, together=1),
    )
    assert (alone.passes, together.passes, apart.passes) == (1, 1, 2)
    assert (alone.tokens, together.tokens, apart.tokens) == (768, 768, 1536)
    assert together.disk_bytes == apart.disk_bytes == 2 * alone.disk_bytes
    # Another run in the same pass brings its weights and moments, but no buffer and no step of its own.
    assert together.memory_bytes - alone.memory_bytes == alone.runs[0].size.kept_bytes
    assert apart.memory_bytes == alone.memory_bytes
    assert together.seconds > sum(run.seconds for run in together.runs)


def test_memory_counts_each_site_once(settings: dict[str, Any], tmp_path: Path) -> None:
    def bytes_of(**more: Any) -> int:
        return plan({tmp_path / "a": load_config(TrainConfig, None, settings | more)}).memory_bytes

    # A transcoder buffers 256 tokens of 16 numbers more; so does a run that wants gradients.
    assert bytes_of(target="blocks.1.mlp_out") - bytes_of() == 256 * 16 * 4
    assert bytes_of(**{"sae.preset": "gradient"}) - bytes_of() == 256 * 16 * 4


def test_of_several_ranks_each_has_its_part(settings: dict[str, Any], tmp_path: Path) -> None:
    configs = {tmp_path / "a": load_config(TrainConfig, None, settings)}
    expected = plan(configs, ranks=Ranks(0, 4), parallel=ParallelConfig(data=2))
    # A shard of 32 latents: W_enc and W_dec of 32 × 16, 32 + 16 biases, three times, and 64 bytes of statistics for
    # each. A step: a gradient, and two tables of 32 tokens × 32 latents. The buffer: 256 tokens of 16 numbers.
    shard = 32 * 16 * 2 + 32 + 16
    assert expected.memory_bytes == (3 * 4 * shard + 64 * 32) + (4 * shard + 2 * 4 * 32 * 32) + 256 * 16 * 4
    assert expected.disk_bytes == plan(configs).disk_bytes
    assert (expected.tokens, expected.runs[0].steps, expected.runs[0].size.parameters) == (768, 12, 2128)
    lines = expected.lines()
    assert lines[2].endswith("GB on each of 4 ranks, beside the model")
    assert lines[3].endswith("tokens/s, beside what the ranks exchange")
    assert not list(tmp_path.iterdir())


def test_spread_runs_are_in_the_memory_of_their_rank_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    configs = {tmp_path / str(k): load_config(TrainConfig, None, settings | {"sae.k": k}) for k in (1, 2, 3)}
    spread = plan(configs, ranks=Ranks(0, 2), parallel=ParallelConfig(sweep=True))
    two = plan(dict(list(configs.items())[:2]))
    assert (spread.passes, spread.memory_bytes) == (1, two.memory_bytes)
    one_each = plan(configs, together=1, ranks=Ranks(0, 2), parallel=ParallelConfig(sweep=True))
    assert (one_each.passes, one_each.memory_bytes) == (2, plan(configs, together=1).memory_bytes)
