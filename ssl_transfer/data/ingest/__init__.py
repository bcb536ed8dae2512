"""Ingest: files of a real archive go in, an immutable image store comes out."""
