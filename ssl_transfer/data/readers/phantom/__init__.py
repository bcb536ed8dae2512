"""Phantoms: three generated domains, written as ordinary files that the readers read."""
