"""Several dictionaries at once: what their substitutions do to the model in the same forward pass."""
