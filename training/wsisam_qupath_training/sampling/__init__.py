"""Training samples and the prompts that are drawn on them."""
