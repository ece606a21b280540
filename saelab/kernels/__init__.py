"""Sparse arithmetic of dictionaries: select, decode and gradients over kept (token, latent) matches.

Shape legend of this floor: B tokens (rows) · d = d_in · F = d_sae · nnz kept matches.
"""
