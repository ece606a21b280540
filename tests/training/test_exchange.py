"""Who has which tokens, and what a rank sees of the others' matches."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.kernels.codes import SparseCodes
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import Mesh
from saelab.training.exchange import ALONE, Exchange, Tokens, added_up


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 7), st.data())
def test_every_so_many_th_token_is_one_ranks(total: int, ranks: int, stride: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, stride - 1))
    batch = torch.arange(total)
    some, found = batch[first::stride], []
    for rank in range(ranks):
        tokens = Tokens.of(total, Axis(rank, ranks))
        own = batch[tokens.own][tokens.own_every(stride, first)]
        assert torch.equal(own, some[tokens.every(stride, first).own])
        found.append(own)
    assert torch.equal(torch.cat(found), some)
    assert tokens.every(stride, first).counts == [len(own) for own in found]
    assert (tokens.total, tokens.every(stride, first).total) == (total, len(some))


def test_tokens_of_two_ranks_by_hand() -> None:
    first, second = (Tokens.of(7, Axis(rank, 2)) for rank in range(2))  # tokens 0 … 3 and 4 … 6
    assert (first.own, second.own, first.counts) == (slice(0, 4), slice(4, 7), [4, 3])
    # Every third from the third on: 2 and 5. Each rank has one of them: its third, its second.
    assert [tokens.own_every(3, 2).start for tokens in (first, second)] == [2, 1]
    assert first.every(3, 2).parts == (range(1), range(1, 2))


def test_one_process_keeps_what_it_has() -> None:
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    codes, tokens = SparseCodes.from_mask(dense, dense > 0), Tokens((range(2),))
    seen, (numbers,) = ALONE.matches(codes, [dense[dense > 0]], tokens)
    assert seen is codes
    assert torch.equal(numbers, dense[dense > 0])
    for whole in (ALONE.rows(dense, tokens), ALONE.seen(dense, tokens), ALONE.share(dense), ALONE.own_of_alike(dense)):
        assert torch.equal(whole, dense)
    number = torch.tensor(3.0)
    assert added_up(Axis(), "numbers", number, 2.5) == [number, 2.5]


def test_either_matches_are_gathered_or_sums_added() -> None:
    mesh = Mesh()
    mesh.data = Axis(1, 3)
    sparse, sharded = Exchange(mesh), Exchange(mesh, sharded=True)
    assert [(way.gathered.size, way.summed.size) for way in (sparse, sharded)] == [(3, 1), (1, 3)]
    tokens, whole = Tokens.of(7, mesh.data), torch.arange(7)
    assert sparse.seen(whole, tokens).tolist() == [*range(7)]
    assert sharded.seen(whole, tokens).tolist() == [3, 4]
    # What three ranks have alike is counted once: a third here, all of it where each has sums of its own.
    assert sparse.share(whole).tolist() == [3, 4]
    assert sharded.share(whole).tolist() == [*range(7)]
