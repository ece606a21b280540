"""Latents turned up and down."""
