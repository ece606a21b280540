"""What each rank has and writes: together every row once, whatever the grid."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.ranks import Ranks
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import Mesh
from saelab.training.exchange import Exchange
from saelab.training.pieces import is_by_latent, own_rows, pieces
from saelab.training.trainer import Trainer
from tests.training.test_gradients import ARCHITECTURES, F, batch_of, trainer_of


def a_mesh(rank: int, data: int, latent: int) -> Mesh:
    """Where a rank stands in a grid, without the others."""
    mesh = Mesh()
    mesh.ranks = Ranks(rank, data * latent)
    mesh.data, mesh.latent = Axis(rank // latent, data), Axis(rank % latent, latent)
    mesh.world = Axis(rank, data * latent)
    return mesh


def trained(name: str, transcoder: bool = False) -> Trainer:
    overrides: dict[str, Any] = ARCHITECTURES[name] | {"sae.aux.kind": "aux_zipf"}
    trainer = trainer_of(overrides, transcoder)
    for _ in range(2):
        trainer.step(batch_of(transcoder))
    return trainer


@pytest.mark.parametrize("transcoder", [False, True])
@pytest.mark.parametrize("name", ["feature", "jumprelu", "gated"])
def test_a_tensor_has_a_row_for_each_latent_or_is_replicated(name: str, transcoder: bool) -> None:
    """Budgets are the one exception: they are as long as the dictionary and known whole on every rank."""
    for key, tensor in trained(name, transcoder).state().items():
        long = tensor.dim() > 0 and len(tensor) == F
        assert is_by_latent(key) == (long and key not in ("gate.shares", "gate.carry")), key


# Made once: the properties below only cut it.
STATE = trained("feature").state()


@given(st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_ranks_together_write_every_row_once(data: int, latent: int, sharded: bool) -> None:
    state = STATE
    whole = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    times = {name: torch.zeros(tensor.shape[:1]) for name, tensor in state.items()}
    for rank in range(data * latent):
        exchange = Exchange(a_mesh(rank, data, latent), sharded)
        written = pieces(own_rows(state, F, exchange, "cpu"), F, exchange)
        assert rank > 0 or written.keys() == state.keys()
        for name, piece in written.items():
            assert piece.shape == list(state[name].shape), name
            if piece.tensor.dim() == 0:
                assert rank == 0, "numbers are the first rank's to write"
                whole[name].copy_(piece.tensor)
                times[name] += 1
            else:
                rows = slice(piece.first, piece.first + len(piece.tensor))
                whole[name][rows] = piece.tensor
                times[name][rows] += 1
    for name, tensor in state.items():
        assert torch.equal(whole[name], tensor), name
        assert (times[name] == 1).all(), name


def test_moments_of_matrices_are_divided_where_row_sums_travel() -> None:
    state = STATE
    sparse, sharded = (own_rows(state, F, Exchange(a_mesh(2, 2, 2), way), "cpu") for way in (False, True))
    assert [len(own["weights.W_enc"]) for own in (sparse, sharded)] == [F // 2, F // 2]
    assert [len(own["adam.W_enc.exp_avg"]) for own in (sparse, sharded)] == [F // 2, F // 4]
    assert [len(own["adam.b_enc.exp_avg"]) for own in (sparse, sharded)] == [F // 2, F // 2]
    assert torch.equal(sharded["adam.W_dec.exp_avg"], state["adam.W_dec.exp_avg"][F // 4 : F // 2])
