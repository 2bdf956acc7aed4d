"""Learn WSI-SAM adapters from annotated slides, and measure them."""
