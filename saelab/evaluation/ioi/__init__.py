"""Dictionaries judged against supervised ones on indirect object identification (arXiv 2405.08366)."""
