"""Draw training samples, and prompts on them."""
