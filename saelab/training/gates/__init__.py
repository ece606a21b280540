"""Gates: which (token, latent) matches a training step keeps, and how the loss flows back through that choice.

One file per family: `budgeted` (token, mutual and feature choice under any affinity), `relu`, `jumprelu`, `gated`.
Shape legend: B tokens · d = d_in · F = d_sae · nnz kept matches.
"""
