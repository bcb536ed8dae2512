"""Checks of artifacts on disk: their checksums, and whether their files agree with each other."""
