"""Gradient-aware encoding: training's selection again, and nowhere but in evaluation."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saelab
from saelab.dictionaries import leaking
from saelab.dictionaries.config import (
    ActivationAffinity,
    DictionaryConfig,
    FeatureChoice,
    GradientAffinity,
    MutualChoice,
    TokenChoice,
)
from saelab.dictionaries.dictionary import Dictionary

ALLOCATIONS = {"token": TokenChoice(), "mutual": MutualChoice(), "feature": FeatureChoice()}


def make(allocation: str, d_in: int = 6, d_sae: int = 16, k: int = 3, seed: int = 0, **affinity: object) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    rule = "topk" if allocation == "token" else "threshold"
    config = DictionaryConfig(
        architecture="gradient", d_in=d_in, d_sae=d_sae, k=k, affinity=GradientAffinity.model_validate(affinity),
        allocation=ALLOCATIONS[allocation], rule=rule, scale=2.0, site="blocks.0.resid_post", model="test",
        model_fingerprint="", tokenizer_fingerprint="", policy={}, tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    threshold = torch.full((d_sae,), 0.3) if rule == "threshold" else torch.empty(0)
    return Dictionary(W_dec.clone(), W_dec, torch.zeros(d_sae), torch.zeros(d_in), threshold, config)


@given(st.integers(0, 50), st.integers(1, 5), st.sampled_from(["activation", "affinity"]))
def test_without_weight_on_the_gradient_it_is_encode(seed: int, k: int, value: str) -> None:
    dictionary = make("token", k=k, seed=seed, beta=0.0, value=value)
    generator = torch.Generator().manual_seed(seed)
    x, gradient = torch.randn(2, 4, 6, generator=generator), torch.randn(2, 4, 6, generator=generator)
    ours, plain = leaking.encode(dictionary, x, gradient), dictionary.encode(x)
    assert ours.shape == plain.shape == (2, 4)
    for name in ("values", "latents", "offsets"):
        assert torch.equal(getattr(ours, name), getattr(plain, name))


def by_hand(value: str, allocation: str = "token", threshold: list[float] | None = None) -> list[list[float]]:
    """Two latents, one per coordinate, k = 1, z = 2x, β = 1 with |g| as it is."""
    dictionary = make(allocation, d_in=2, d_sae=2, k=1, beta=1.0, normalise="none", value=value)
    dictionary = replace(dictionary, W_enc=torch.eye(2), W_dec=torch.eye(2))
    if threshold is not None:
        dictionary = replace(dictionary, threshold=torch.tensor(threshold))
    x, gradient = torch.tensor([[3.0, 2.0], [1.0, 2.5]]), torch.tensor([[0.0, -1.0], [0.5, 0.0]])
    return leaking.encode(dictionary, x, gradient).to_dense().tolist()


def test_the_gradient_decides_by_hand() -> None:
    # z = [[6, 4], [2, 5]]; z + z·|g| = [[6, 8], [3, 5]]: the first token's gradient prefers its smaller coordinate.
    assert by_hand("activation") == [[0, 4], [0, 5]]
    assert by_hand("affinity") == [[0, 8], [0, 5]]
    # The batch's two best are 8 and 6, both of the first token.
    assert by_hand("activation", "mutual") == [[6, 4], [0, 0]]
    # In units of thresholds 1 and 4: [[6, 2], [3, 1.25]].
    assert by_hand("activation", "feature", [1.0, 4.0]) == [[6, 0], [2, 0]]


@pytest.mark.parametrize("allocation", ["mutual", "feature"])
def test_the_budget_of_the_batch_is_spent(allocation: str) -> None:
    dictionary = make(allocation, k=3, beta=2.0)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) + 1
    assert leaking.encode(dictionary, x, torch.randn(50, 6)).nnz == 3 * 50


def test_a_latent_that_never_fired_stays_silent() -> None:
    dictionary = make("feature", beta=1.0)
    dictionary.threshold[4] = torch.finfo(torch.float32).max
    codes = leaking.encode(dictionary, torch.randn(200, 6) * 5, torch.randn(200, 6))
    assert codes.fired()[4] == 0


def test_other_dictionaries_have_nothing_to_leak() -> None:
    dictionary = make("token")
    plain = replace(dictionary, config=dictionary.config.model_copy(update={"affinity": ActivationAffinity()}))
    assert leaking.was_selected_by_gradient(dictionary.config)
    assert not leaking.was_selected_by_gradient(plain.config)
    with pytest.raises(ValueError, match="not trained with gradients"):
        leaking.encode(plain, torch.randn(2, 6), torch.randn(2, 6))


def test_only_evaluation_may_see_the_gradient() -> None:
    package = Path(saelab.__file__).parent
    files = [*package.rglob("*.py"), *(package.parent / "app").rglob("*.py")]
    users = {file.parent for file in files if "saelab.dictionaries" in imported(file, "leaking")}
    assert users == {package / "evaluation"}


def imported(file: Path, name: str) -> set[str]:
    """Modules that the file imports `name`, or something out of a module of that name, from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        else:
            continue
        found |= {path.split(f".{name}")[0] for path in paths if name in path.split(".")}
    return found
