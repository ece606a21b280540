"""Triton kernels for NVIDIA GPUs: selection, sums and products over kept matches, and Adam.

Tested under Triton's interpreter on CPU tensors; nothing here has been timed on a GPU. Shapes as in `saelab.kernels`.
"""
