"""Jobs on whole QuPath projects, and the transaction that writes results into an image."""
