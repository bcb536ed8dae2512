"""The explorer: a feature space as one HTML page, with mouse and keyboard."""
