"""Training: the one optimisation loop and what it is made of."""
