"""Settings: what there is, where each value came from, and what is wrong with it."""
