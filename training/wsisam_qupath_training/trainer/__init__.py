"""The training of decoders, from samples to an adapter file."""
