"""Strategies: how a fine-tune treats the layers. One page each; the loop is the one loop."""
