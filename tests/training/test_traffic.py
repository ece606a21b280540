"""The bytes that a rank receives in a step are those of the formula, for every architecture and layout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from saelab.kernels import shared
from saelab.ranks import Ranks
from saelab.ranks.mesh import Mesh, meshed
from saelab.training.auxiliary import AUXILIARY_MATCHES, auxiliary_size, auxiliary_stride
from saelab.training.config import NoAux, SaeConfig, risen
from saelab.training.exchange import Exchange
from saelab.training.gates.budgeted import BudgetedGate
from saelab.training.statistics import LatentStatistics
from saelab.training.traffic import Kept, Step, moves_rows, row_traffic
from saelab.training.trainer import Trainer
from tests.forks import Group
from tests.training.meshes import WIDTHS, B, D, batches, case_of, every_case

TAKEN = 12  # steps: dead latents come after five


def count(ranks: Ranks, data: int, latent: int, names: list[str], sharded: bool) -> str:
    """Steps whose bytes are not those of the formula, and how many purposes were met."""
    wrong: list[str] = []
    met: set[str] = set()
    with meshed(ranks, data, latent) as mesh:
        for name in names:
            for dtype in (torch.float32, torch.float64) if name.startswith("mutual") else (torch.float32,):
                sample, *some = batches(name, dtype)
                widths = WIDTHS if name.startswith("transcoder") else ()
                trainer = Trainer.begin(case_of(name), sample, widths, mesh, sharded)
                for batch in some[:TAKEN]:
                    got, expected = one_step(trainer, batch, mesh)
                    met |= set(expected)
                    if got != expected:
                        wrong.append(f"{name}, step {trainer.done}: {got}, not {expected}")
    return json.dumps([wrong[:3], sorted(met)])


def one_step(trainer: Trainer, batch: Any, mesh: Mesh) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes that were counted, and those of the formula for what was kept."""
    config, sae = trainer.config, trainer.config.sae
    progress, done = trainer.done / config.steps, trainer.done
    trainer.gate.reads_by_latent(progress)  # as the step does first, where feature choice may begin
    before = Counter(mesh.received)
    with watched() as seen:
        is_first_phase = isinstance(trainer.gate, BudgetedGate) and "Mutual" in type(trainer.gate.allocation).__name__
        trainer.step(batch)
    got = {purpose: n - before[purpose] for purpose, n in mesh.received.items() if n - before[purpose]}

    def everywhere(purpose: str) -> list[int]:
        """Matches of this shard on each data rank."""
        told = [json.loads(text) for text in mesh.ranks.gather("kept", json.dumps(seen))]
        return [told[row * mesh.latent.size + mesh.latent.index].get(purpose, 0) for row in range(mesh.data.size)]

    matches, auxiliary = everywhere("matches"), everywhere(AUXILIARY_MATCHES)
    is_taken = not isinstance(sae.aux, NoAux) and sae.aux.coefficient * risen(progress, sae.aux.warmup_fraction) > 0
    k_aux = 0 if isinstance(sae.aux, NoAux) else auxiliary_size(sae.aux, batch.target.shape[1])
    stride = 1 if isinstance(sae.aux, NoAux) else auxiliary_stride(sae.aux, k_aux, sae.k, B)
    step = Step(
        sae, mesh.data.size, mesh.latent.size, B, D, batch.target.shape[1], sae.k_at(progress),
        mesh.data.index, mesh.latent.index, k_aux, stride, done % stride, is_first_phase,
        trainer.exchange.summed.size > 1, batch.x.element_size(),
    )  # fmt: skip
    found = (auxiliary if AUXILIARY_MATCHES in seen else ()) if is_taken else None
    return got, step.received(Kept(matches, found, seen.get("attempts", 0), seen.get("tables", 0)))


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """What a step keeps, how often a mutual choice begins, and how often densities are brought together."""
    seen: Counter[str] = Counter()
    matches, everywhere, threshold = Exchange.matches, LatentStatistics.everywhere, shared.threshold

    def seen_matches(self: Any, codes: Any, of: Any, tokens: Any, purpose: str = "matches") -> Any:
        seen[purpose] += codes.nnz
        return matches(self, codes, of, tokens, purpose)

    def seen_everywhere(self: Any, own: Any) -> Any:
        seen["tables"] += 1
        return everywhere(self, own)

    def seen_threshold(*arguments: Any) -> Any:
        seen["attempts"] += 1
        return threshold(*arguments)

    with (
        patch.object(Exchange, "matches", seen_matches),
        patch.object(LatentStatistics, "everywhere", seen_everywhere),
        patch.object(shared, "threshold", seen_threshold),
    ):
        yield seen


def require_the_formula(folder: Path, data: int, latent: int, sharded: bool, names: list[str]) -> None:
    for kind, said in Group(folder, data * latent, count, data, latent, names, sharded).wait():
        assert kind == "done", said
        wrong, met = json.loads(said)
        assert not wrong
        expected = {"b_dec", "losses", "auxiliary"}
        expected |= (
            {"reconstruction", "token choice", "statistics", "densities", "auxiliary choice"} if latent > 1 else set()
        )
        expected |= {"rows", "vectors"} if data > 1 else set()
        expected |= {"matches", "auxiliary rows"} if data > 1 and not sharded else set()
        assert expected <= set(met)


SOME = ["topk + aux_k", "mutual + aux_zipf", "feature, zipf + aux_k", "gradient × mutual + none", "matryoshka + aux_k",
        "jumprelu + aux_zipf", "gated + aux_k", "transcoder + aux_zipf"]  # fmt: skip


@pytest.mark.parametrize(("data", "latent", "sharded"), [(1, 3, False), (2, 2, False), (2, 2, True)])
def test_bytes_of_some_architectures(tmp_path: Path, data: int, latent: int, sharded: bool):
    require_the_formula(tmp_path, data, latent, sharded, SOME)


@pytest.mark.distributed
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(("data", "latent"), [(1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (1, 4)])
def test_bytes_of_every_architecture(tmp_path: Path, data: int, latent: int, sharded: bool):
    require_the_formula(tmp_path, data, latent, sharded, every_case())


def test_one_process_receives_nothing():
    step = Step(SaeConfig(d_sae=64, k=4), 1, 1, 32, 8, 8, 4)
    assert step.received(Kept([128], [512], tables=1)) == {}


def test_sparse_or_sharded():
    """8 ranks of 1,024 tokens; by hand."""
    few = row_traffic(data=8, tokens=8192, matches=32 * 1024, latents=131_072, d_in=768, d_out=768)
    assert few.sparse == 7 * (1024 * 4 + 32 * 1024 * 12 + 1024 * 768 * 4)
    assert few.sharded == 2 * 7 * 16_384 * (768 + 768) * 4
    assert few.is_sparse
    small = row_traffic(data=8, tokens=65_536, matches=32 * 8192, latents=512, d_in=64, d_out=64)
    assert not small.is_sparse


def test_nested_dictionaries_send_a_table_for_each_that_has_latents_of_the_shard():
    """Ends at 4, 8, 16, 32 and 64 of 64 latents: of two shards the first has four rings, the second one."""
    sae = SaeConfig(preset="matryoshka", d_sae=64, k=4)
    assert [Step(sae, 2, 2, 32, 8, 8, 4, latent_index=index).rings for index in range(2)] == [4, 1]
    one = row_traffic(data=2, tokens=32, matches=64, latents=32, d_in=8, d_out=8)
    four = row_traffic(data=2, tokens=32, matches=64, latents=32, d_in=8, d_out=8, tables=4)
    assert four.sparse - one.sparse == 3 * 16 * 8 * 4
    assert not moves_rows(SaeConfig(d_sae=64, k=4), 2, 2, 32, 8, 8)
    assert moves_rows(SaeConfig(preset="matryoshka", d_sae=64, k=4), 2, 2, 32, 8, 8)
