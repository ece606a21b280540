"""Ground truth: activations made from a dictionary that is known, and how much of it a trained one recovers."""
