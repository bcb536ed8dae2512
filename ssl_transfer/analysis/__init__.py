"""Looking into a feature space. Reads artifacts, trains nothing."""
