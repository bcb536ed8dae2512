"""The explorer: a feature space as one HTML page, to walk through with eyes, mouse and keys."""
