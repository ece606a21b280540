"""The Slurm examples start what they say; Slurm's own commands are replaced by ones that write down their words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["train", "harvest"])
def test_what_is_started(tmp_path: Path, name: str):
    for command, does in (("scontrol", "echo node-a; echo node-b"), ("srun", 'printf "%s\\n" "$@"')):
        (tmp_path / command).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / command).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "7"}
    script = ROOT / "configs" / "slurm" / f"{name}.sbatch"
    done = subprocess.run(
        ["bash", str(script), "settings.yaml", "a folder"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    torchrun, *words = done.stdout.splitlines()
    assert torchrun == "torchrun"
    options = get_args_parser().parse_args(words)
    assert (options.nnodes, options.nproc_per_node, options.max_restarts) == ("2", "8", 3)
    assert (options.rdzv_backend, options.rdzv_endpoint, options.rdzv_id) == ("c10d", "node-a:29500", "7")
    assert (options.module, options.training_script) == (True, "saelab")
    command, file, *rest = options.training_script_args
    assert (command, file, rest[:2]) == (name, "settings.yaml", ["--out", "a folder"])
    assert rest[2:] == (["--parallel.data", "2", "--parallel.latent", "8"] if name == "train" else [])


@pytest.mark.parametrize("name", ["train", "harvest"])
def test_without_its_arguments_it_says_which_are_wanted(name: str):
    done = subprocess.run(
        ["bash", str(ROOT / "configs" / "slurm" / f"{name}.sbatch")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"the settings of the {name if name == 'harvest' else 'training'}, a yaml file" in done.stderr
