"""A step on several ranks is the step of one process: the same matches, losses, weights and statistics.

In float64, where the order of sums leaves differences of 1e-16 and no two scores are nearly equal by chance.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saelab.activations.batch import ActivationBatch
from saelab.disk import RunPaths, read_jsonl
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError
from saelab.ranks import Ranks
from saelab.ranks.mesh import Mesh, meshed
from saelab.training.log import MetricsLog
from saelab.training.trainer import DivergedError, Trainer
from tests.forks import Group
from tests.training.meshes import (
    ARCHITECTURES,
    AUXILIARY,
    STEPS,
    Course,
    alone,
    batches,
    case_of,
    found_together,
    save,
    together,
    worst,
)

EXACT = torch.float64
CLOSE = 1e-9  # of a tensor's largest number; Adam divides small gradients by their own size, and with them rounding
SHORT, LONGER, LOGGED = 12, 18, 4  # steps; after the tenth feature choice is in its second phase
LAYOUTS = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (1, 4), (4, 1)]


def agree(folder: Path, names: list[str], size: int, steps: int) -> None:
    for name in names:
        course, state = found_together(folder, name, size)
        expected, last = alone(name, EXACT, steps)
        assert torch.equal(course["kept"], expected["kept"].sort().values), f"{name}: other matches"
        torch.testing.assert_close(course["losses"], expected["losses"], rtol=CLOSE, atol=1e-12, msg=name)
        difference, tensor = worst(state, last)
        assert difference < CLOSE, f"{name}: {tensor} is {difference:.1e} off"
        if name.endswith(("aux_k", "aux_zipf")):
            assert (expected["losses"][:, 3] > 0).any(), f"{name}: nobody was starved"


@pytest.mark.distributed
@pytest.mark.parametrize("auxiliary", AUXILIARY)
@pytest.mark.parametrize("sharded", [False, True], ids=["sparse", "sharded"])
@pytest.mark.parametrize(("data", "latent"), LAYOUTS)
def test_every_architecture_on_every_mesh(
    data: int, latent: int, sharded: bool, auxiliary: str, tmp_path: Path
) -> None:
    if sharded and data == 1:
        pytest.skip("one data rank has no others to share rows with")
    names, size = [f"{architecture} + {auxiliary}" for architecture in ARCHITECTURES], data * latent
    for first in range(0, len(names), 4):
        folder, some = tmp_path / str(first), names[first : first + 4]
        ends = Group(folder, size, together, folder, data, latent, some, EXACT, sharded).wait()
        assert [kind for kind, _ in ends] == ["done"] * size, ends
        agree(folder, some, size, STEPS)


SPARSE = ["topk + aux_k", "feature, zipf + aux_zipf", "matryoshka + none", "gated + aux_zipf"]
SHARDED = ["transcoder + aux_zipf", "jumprelu + aux_k"]
CONTINUED = "gradient × feature + aux_zipf"


def all_at_once(ranks: Ranks, folder: Path) -> str:
    """Everything that four ranks can show in one go."""
    together_in(ranks, folder)
    with meshed(ranks, 2, 2) as mesh:
        continues(folder, mesh)
        return f"{diverges(mesh)}\n{differ(mesh)}\n{logs(folder, mesh)}"


def together_in(ranks: Ranks, folder: Path) -> None:
    together(ranks, folder, 2, 2, SPARSE, EXACT, False, SHORT)
    together(ranks, folder, 2, 2, SHARDED, EXACT, True, SHORT)


def continues(folder: Path, mesh: Mesh) -> None:
    """From one process's state, half-way; rows of the state are given up to both ways of exchange."""
    for sharded in (False, True):
        whole = read_tensors(folder / "half-way")
        before = {name: tensor.clone() for name, tensor in whole.items()}
        trainer = Trainer.resume(case_of(CONTINUED), whole, SHORT, "cpu", mesh, sharded)
        Course(trainer).go(batches(CONTINUED, EXACT)[1 + SHORT : 1 + LONGER])
        assert all(torch.equal(whole[name], tensor) for name, tensor in before.items()), "what is given stays"
        save(trainer, folder / f"continued {sharded}", mesh)


def diverges(mesh: Mesh) -> str:
    """A bad number in the third token, which the first data rank has."""
    sample, first, second, *_ = batches("topk + aux_k", EXACT)
    trainer = Trainer.begin(case_of("topk + aux_k"), sample, mesh=mesh)
    trainer.step(first)
    x = second.x.clone()
    x[2, 0] = torch.nan
    try:
        trainer.step(ActivationBatch(x, x, None, second.tokens))
    except DivergedError as error:
        return str(error)
    return "nothing"


def differ(mesh: Mesh) -> str:
    """One bit of one replica, of what all ranks hold and of what two do."""
    sample, *_ = batches("topk + none", EXACT)
    said = []
    for rank, change in ((3, "b_dec"), (2, "W_enc")):
        trainer = Trainer.begin(case_of("topk + none"), sample, mesh=mesh)
        trainer.pieces()
        if mesh.ranks.rank == rank:
            trainer.weights.named()[change].view(torch.int64).view(-1)[1] ^= 1
        try:
            trainer.pieces()
        except UserError as error:
            said.append(str(error))
    return "; ".join(sentence.partition(" hold different")[0] for sentence in said)


def logs(folder: Path, mesh: Mesh) -> str:
    """One line of metrics, by all ranks of which one writes."""
    sample, *rest = batches("topk + aux_k", EXACT)
    trainer, log = Trainer.begin(case_of("topk + aux_k"), sample, mesh=mesh), MetricsLog(RunPaths(folder))
    for batch in rest[:LOGGED]:
        log.add(trainer.step(batch))
    log.write(trainer)
    return "logged"


def test_four_ranks_do_what_one_process_does(tmp_path: Path) -> None:
    _, half = alone(CONTINUED, EXACT, SHORT)
    write_tensors(tmp_path / "half-way", {name: tensor.contiguous() for name, tensor in half.items()})
    ends = Group(tmp_path, 4, all_at_once, tmp_path).wait()
    said = "\n".join([
        "the loss became nan at step 1; lower optimizer.lr or look for non-finite activations",
        "ranks that should hold the same weights.b_dec; ranks that should hold the same weights.W_enc",
        "logged",
    ])  # fmt: skip
    assert ends == [("done", said)] * 4

    agree(tmp_path, [*SPARSE, *SHARDED], 4, SHORT)
    _, last = alone(CONTINUED, EXACT, LONGER)
    for sharded in (False, True):
        assert worst(read_tensors(tmp_path / f"continued {sharded}"), last)[0] < CLOSE

    sample, *rest = batches("topk + aux_k", EXACT)
    trainer, log = Trainer.begin(case_of("topk + aux_k"), sample), MetricsLog(RunPaths(tmp_path / "alone"))
    for batch in rest[:LOGGED]:
        log.add(trainer.step(batch))
    (tmp_path / "alone").mkdir()
    expected = log.write(trainer)
    assert expected is not None
    (line,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert line.keys() == expected.keys()
    for name in line.keys() - {"tokens_per_s", "seconds"}:
        assert line[name] == pytest.approx(expected[name], rel=CLOSE), name
