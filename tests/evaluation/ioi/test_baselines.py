"""Principal components against the singular value decomposition."""

import pytest
import torch

from saelab.errors import UserError
from saelab.evaluation.ioi.baselines import pca
from saelab.evaluation.ioi.toys import unwritten_prompts


def test_components_reconstruct_best() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, dtype=torch.float64, generator=generator) @ torch.randn(6, 6, generator=generator).double()
    features, prompts = pca(x, 2), unwritten_prompts(40, 4, generator)
    codes = features.encode(x, prompts)
    error = (x - features.reconstruct(codes)).square().sum()
    torch.testing.assert_close(error, torch.linalg.svdvals(x - x.mean(0))[2:].square().sum())
    torch.testing.assert_close(features.vectors @ features.vectors.T, torch.eye(2, dtype=torch.float64))
    assert (features.name, features.n_latents, codes.nnz) == ("PCA-2", 2, 80)


def test_more_components_than_there_are() -> None:
    with pytest.raises(UserError, match="have no 7 principal components"):
        pca(torch.randn(40, 6), 7)
