"""One dictionary as a whole."""
