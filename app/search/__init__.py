"""Finding latents."""
