"""Phantoms: three generated domains, written as ordinary files that the ordinary sources read back."""
