"""Readers: how files of one kind are found and read. `ingest` turns any of them into a store."""
