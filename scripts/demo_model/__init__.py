"""How the bundled demo model is made: tokenizer, batches, training loop, measurements, model card."""
