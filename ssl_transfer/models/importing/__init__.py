"""Import of other people's checkpoints: a table of layouts, and a backbone folder out of any of them."""
