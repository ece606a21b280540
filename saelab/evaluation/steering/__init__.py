"""What latents do to the model when they are turned up, against random and mean-difference directions."""
