"""Steering a dictionary that reads one site and writes others: edits of its codes are felt where it writes."""

from dataclasses import replace

import pytest
import torch

from saelab.dictionaries.config import Target
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.models import Intervention, Site
from saelab.steering.config import LatentEdit, Method
from saelab.steering.edits import by_difference
from saelab.steering.response import next_logits
from saelab.steering.steered import Sampling, interventions, side_by_side, steered

READS, MLP, LATE = "blocks.0.resid_mid", "blocks.0.mlp_out", "blocks.1.attn.z.head1"
EDITS = [LatentEdit(latent=7, strength=3.0), LatentEdit(latent=11, mode="zero")]


@pytest.fixture
def transcoder(model, make_dictionary):
    def build(site: str, *targets: str) -> Dictionary:
        plain = make_dictionary(site)
        described = tuple(
            Target(site=t, width=model.width(Site.parse(t)), scale=0.5 + i) for i, t in enumerate(targets)
        )
        d_out = sum(target.width for target in described)
        weights = torch.randn(32, d_out, generator=torch.Generator().manual_seed(5))
        config = plain.config.model_copy(update={"targets": described})
        return replace(plain, W_dec=weights, b_dec=torch.zeros(d_out), config=config)

    return build


@pytest.mark.parametrize("targets", [(MLP,), (MLP, LATE), (READS, LATE)])
def test_edited_codes_are_felt_at_the_targets(model, tokens, transcoder, targets: tuple[str, ...]):
    dictionary, sites = transcoder(READS, *targets), [Site.parse(target) for target in targets]
    x = model.activations(tokens, [Site.parse(READS)])[Site.parse(READS)]
    codes = dictionary.encode(x).to_dense()
    edited = codes.clone()
    edited[..., 7] += 3.0
    edited[..., 11] = 0.0
    change = ((edited - codes) @ dictionary.W_dec / dictionary.output_scale).split([model.width(s) for s in sites], -1)
    with model.intervene(*(Intervention(s, lambda y, v=v: y + v) for s, v in zip(sites, change, strict=True))):
        expected = model.logits(tokens)
    with steered(model, dictionary, EDITS):
        torch.testing.assert_close(model.logits(tokens), expected, rtol=1e-4, atol=1e-4)


def test_a_direction_is_added_at_the_targets(model, tokens, transcoder):
    dictionary = transcoder(READS, MLP, LATE)
    parts = (2.0 * dictionary.decoder_directions()[7]).split([16, 8])
    sites = (Site.parse(MLP), Site.parse(LATE))
    with model.intervene(*(Intervention(s, lambda y, v=v: y + v) for s, v in zip(sites, parts, strict=True))):
        expected = model.logits(tokens)
    with steered(model, dictionary, {7: 2.0}, method="direction"):
        torch.testing.assert_close(model.logits(tokens), expected, rtol=1e-4, atol=1e-4)


def test_an_empty_edit_is_exactly_a_no_op(model, tokens, transcoder):
    before = model.logits(tokens)
    with steered(model, transcoder(READS, MLP), {}):
        assert torch.equal(model.logits(tokens), before)


def test_generation_sees_the_edits_of_every_new_token(model, transcoder):
    # Greedy generation with its key-value cache must agree with whole forward passes.
    prompt, dictionary = torch.tensor([0, 5, 9]), transcoder(READS, MLP)
    (text,) = side_by_side(model, dictionary, prompt, [(2.0, EDITS)], sampling=Sampling(6, temperature=0.0))
    ids = prompt.tolist()
    with steered(model, dictionary, EDITS):
        for _ in range(6):
            ids.append(int(model.logits(torch.tensor([ids]))[0, -1].argmax()))
    assert text.ids.tolist() == ids[3:]


def test_what_is_written_before_it_is_read_can_only_be_pushed(model, tokens, transcoder):
    dictionary = transcoder(LATE, MLP)
    with pytest.raises(UserError, match=r"writes blocks.0.mlp_out, which the model computes before it"):
        interventions(dictionary, {7: 1.0})
    with steered(model, dictionary, {7: 1.0}, method="direction"):
        assert model.logits(tokens).isfinite().all()


def test_a_transcoders_edits_are_no_function_of_one_activation(transcoder):
    with pytest.raises(UserError, match=r"reads blocks.0.resid_mid and writes blocks.0.mlp_out"):
        by_difference(transcoder(READS, MLP), {7: 1.0})


@pytest.mark.parametrize("positions", ["2", "-1:"])
def test_edits_at_some_positions_are_felt_there(model, tokens, transcoder, positions: str):
    dictionary, before = transcoder(READS, MLP), model.logits(tokens)
    with steered(model, dictionary, EDITS, positions=positions):
        after = model.logits(tokens)
    first = int(positions.strip(":")) % tokens.shape[1]
    assert torch.equal(after[:, :first], before[:, :first])
    assert not torch.equal(after[:, first], before[:, first])


@pytest.mark.parametrize("method", ["difference", "direction"])
def test_several_variants_at_once_are_felt_as_each_alone(model, tokens, transcoder, method: Method):
    dictionary, variants = transcoder(READS, MLP, LATE), [{}, {3: 1.0}, {3: 2.0, 5: 1.0}]
    alone = []
    for edits in variants:
        with steered(model, dictionary, edits, method=method):
            alone.append(model.logits(tokens[:1])[0, -1])
    torch.testing.assert_close(next_logits(model, dictionary, tokens[0], variants, method=method), torch.stack(alone))
    assert not torch.equal(alone[0], alone[1])
