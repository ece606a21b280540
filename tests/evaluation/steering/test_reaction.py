"""One vector at one place: against algebra on a linear readout and against whole passes of the model."""

import pytest
import torch
from torch import Tensor

from saelab.evaluation.steering.directions import Arm
from saelab.evaluation.steering.material import Place
from saelab.evaluation.steering.reaction import PROMOTED, Pushes, Reaction, changes, reaction
from saelab.evaluation.steering.reactions import Stage
from saelab.models import Intervention, Positions, Site
from saelab.progress import track
from saelab.steering.config import LatentEdit
from saelab.steering.steered import steered

LAST, FIRST = Site.parse("blocks.1.resid_post"), Site.parse("blocks.0.resid_post")
FOLLOWING = 3


@pytest.fixture(scope="module")
def place(rows) -> Place:
    return Place(rows.ids[3, :9].long(), document=1)  # position 5 is steered; 6, 7 and 8 are the true continuation


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    return 4 * torch.randn(5, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def rates() -> Tensor:
    """Label 0: tokens below 10. Label 1: tokens below 5, and half of the time token 20."""
    table = torch.zeros(40, 2)
    table[:10, 0] = table[:5, 1] = 1.0
    table[20, 1] = 0.5
    return table


def logits(model, place: Place, *there: Intervention) -> Tensor:
    with model.intervene(*there):
        return model.logits(place.ids[None])[0].double()


def react(model, site, vectors, place, rates=None, target=None) -> Reaction:
    rates = torch.zeros(40, 0) if rates is None else rates
    return reaction(model, (site,), Pushes.of(model, (site,), vectors, target), place, FOLLOWING, rates)


@pytest.mark.parametrize("site", [FIRST, LAST])
def test_everything_is_that_of_whole_passes(model, place, vectors, site):
    found = react(model, site, vectors, place)
    before = logits(model, place)
    truth, at = place.ids[6:9], slice(5, 8)
    for number, vector in enumerate(vectors):
        push = Intervention(site, lambda x, v=vector: x + v, positions=Positions(5, alone=True))
        after = logits(model, place, push)
        p, q = before[5].softmax(-1), after[5].softmax(-1)
        assert float(found.kl[number]) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4, abs=1e-6)
        change = after[5] - before[5]
        assert float(found.largest[number]) == pytest.approx(float(change.abs().max()), rel=1e-4)
        assert int(found.promoted[number]) == int(change.argmax())
        tokens = model.direct_logits(vector[None])[0].topk(PROMOTED).indices
        assert float(found.gain[number]) == pytest.approx(float((q - p)[tokens].sum()), abs=1e-6)
        losses = [-of[at].log_softmax(-1).gather(1, truth[:, None]).mean() for of in (after, before)]
        assert float(found.harm[number]) == pytest.approx(float(losses[0] - losses[1]), abs=1e-5)


def test_at_the_last_site_only_the_next_token_is_harmed(model, place, vectors):
    # Nothing reads position 5 there but its own prediction: the mean over three predictions is a third of its loss.
    whole = react(model, LAST, vectors, place).harm
    alone = reaction(
        model, (LAST,), Pushes.of(model, (LAST,), vectors), Place(place.ids[:7], 1), 1, torch.zeros(40, 0)
    ).harm
    torch.testing.assert_close(whole, alone / 3, rtol=1e-4, atol=1e-6)


def test_nothing_added_changes_nothing(model, place, rates):
    found = react(model, FIRST, torch.zeros(1, 16), place, rates, torch.tensor([0]))
    for value in (found.kl, found.largest, found.gain, found.harm, found.on, found.rest[:, 1]):
        assert value.abs().max() < 1e-5


def test_labels_by_hand(model, place, vectors, rates):
    target = torch.tensor([0, 1, -1, 0, 1])
    found = react(model, LAST, vectors, place, rates, target)
    before = logits(model, place)[5].softmax(-1)
    assert found.clean.tolist() == pytest.approx([float(before[:10].sum()), float(before[:5].sum() + before[20] / 2)])
    for number, vector in enumerate(vectors):
        after = logits(model, place, Intervention(LAST, lambda x, v=vector: x + v, positions=Positions(5, alone=True)))[
            5
        ].softmax(-1)
        if target[number] == 0:  # aimed at the tokens below 10; without these, only token 20 has label 1
            assert float(found.on[number]) == pytest.approx(float((after - before)[:10].sum()), abs=1e-6)
            shares = [float(p[20] / 2 / p[10:].sum()) for p in (after, before)]
            assert found.rest[number, 1].item() == pytest.approx(shares[0] - shares[1], abs=1e-6)
            assert found.rest[number, 0].isnan()
        elif target[number] == 1:  # without label 1, what is left of label 0 is tokens 5 to 9
            assert float(found.on[number]) == pytest.approx(
                float((after - before)[:5].sum() + (after - before)[20] / 2), abs=1e-6
            )
            shares = [float(p[5:10].sum() / (1 - p[:5].sum() - p[20] / 2)) for p in (after, before)]
            assert found.rest[number, 0].item() == pytest.approx(shares[0] - shares[1], abs=1e-6)
        else:
            assert found.on[number].isnan()
            assert found.rest[number].isnan().all()


def test_raising_a_labels_tokens_alike_moves_no_other_label(model, rates):
    before = torch.rand(40, generator=torch.Generator().manual_seed(0)).softmax(-1)
    after = torch.where(torch.arange(40) < 10, 5 * before, before)
    found = changes(before, (after / after.sum())[None], torch.tensor([0]), rates)
    assert found["on"].item() > 0.3
    assert found["rest"][0, 1].abs() < 1e-6


def test_beside_the_residual_stream_nothing_is_promoted_directly(model, place):
    site = Site.parse("blocks.1.attn.z")
    found = react(model, site, torch.ones(2, 16), place)
    assert found.gain.isnan().all()
    assert found.kl.isfinite().all()


def test_clamping_is_the_edit_by_difference(model, rows, random_subject):
    subject = random_subject("blocks.0.resid_post", k=8)
    dictionary, latents = subject.dictionary, torch.arange(32)
    places = [Place(rows.ids[i, :9].long(), i) for i in (2, 5)]
    stage = Stage(model, (subject.site,), places, FOLLOWING, torch.zeros(40, 0))
    units = torch.linspace(1, 3, 32)
    arm = Arm("latents", "own", 2.0, 2.0 * units[:, None] * dictionary.decoder_directions())
    with track(None, "test") as bar:
        added = stage.run(Pushes.of(model, stage.sites, arm.vectors), bar)
    found = stage.clamped(arm, added, dictionary, latents, units)
    differs = 0
    for number, spot in enumerate(places):
        before = logits(model, spot)[5]
        x = model.activations(spot.ids[None, :6], [subject.site])[subject.site][0, -1:]
        fires = dictionary.encode(x).to_dense()[0] > 0
        differs += int(fires.sum())
        for latent in range(32):
            edit = LatentEdit(latent=latent, mode="clamp", strength=2.0)
            with steered(model, dictionary, [edit], units=units, positions="5"):
                change = model.logits(spot.ids[None])[0, 5].double() - before
            assert float(found.largest[latent, number]) == pytest.approx(float(change.abs().max()), rel=1e-3, abs=1e-5)
        assert torch.equal(found.kl[~fires, number], added.kl[~fires, number])
        assert (found.norm[fires, number] < added.norm[fires, number]).all()
    assert differs > 0
