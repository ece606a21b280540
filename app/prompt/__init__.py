"""What a dictionary makes of a text."""
