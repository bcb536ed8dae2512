"""Strategies: which layers a fine-tune trains, and how. One module per strategy."""
