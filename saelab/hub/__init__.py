"""Dictionaries out of and into the world: other tools' formats, and the Hugging Face Hub."""
