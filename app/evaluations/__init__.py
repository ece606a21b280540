"""Reports, side by side."""
