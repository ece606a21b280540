"""One latent as JSON."""

from __future__ import annotations

import json

import pytest

from saelab.features import FeatureIndex
from saelab.features.export import as_json
from saelab.features.notes import Note
from tests.features.conftest import CONTEXT


def test_everything_the_index_knows_is_in_it(index: FeatureIndex) -> None:
    made = json.loads(json.dumps(as_json(index, 9, Note(9, "mine", "a note")), allow_nan=False))
    statistics, examples = index.latent(9), index.examples(9)
    assert (made["name"], made["note"], made["meaning"]) == ("mine", "a note", None)
    assert made["n_active"] == statistics.n_active == sum(made["histogram"]["counts"])
    assert made["histogram"]["edges"][-1] == pytest.approx(statistics.max_activation)
    assert made["about"]["n_tokens"] == index.n_tokens
    assert [part["token"] for part in made["tokens"]] == [index.vocabulary[id] for id in statistics.top_tokens]
    assert made["promoted"][0]["weight"] == index.logits(9).promoted[0].weight
    assert made["neighbours"][0] == {"latent": index.neighbours(9)[0].latent, "cosine": index.neighbours(9)[0].cosine}
    assert [part["value"] for part in made["examples"]] == [example.value for example in examples]
    assert [part["effect"] for part in made["examples"]] == [example.effect for example in examples]
    first = made["examples"][0]
    assert first["tokens"][first["focus"]] == index.vocabulary[examples[0].tokens[examples[0].focus]]
    assert first["activations"][first["focus"]] == first["value"]
    assert first["position"] == examples[0].token % CONTEXT


def test_a_dead_latent_and_losses_that_are_not_known_are_null(index: FeatureIndex) -> None:
    dead = as_json(index, 7)
    assert dead["max_activation"] is None
    assert dead["examples"] == []
    ends = [e for e in as_json(index, 9)["examples"] if e["position"] + len(e["tokens"]) - e["focus"] == CONTEXT]
    assert ends  # windows that reach the end of a row, where nothing is predicted
    assert all(e["losses"][-1] is None for e in ends)
    json.dumps(as_json(index, 9), allow_nan=False)
