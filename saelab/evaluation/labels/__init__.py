"""The labels suite: text of which the truth is known, and what dictionaries tell of it."""
