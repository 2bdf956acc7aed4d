"""The networks, and the base weights that they start from."""
