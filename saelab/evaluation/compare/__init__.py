"""Dictionaries held against each other: paired differences, matched L0, seeds, stability."""
