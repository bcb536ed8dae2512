"""Ingest: read the files of an archive and write an immutable image store."""
