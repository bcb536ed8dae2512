"""A study: many evaluation results, the statistics over them, and the report that says what they mean.

Nothing here imports torch, and importing this package imports nothing at all: take what you need from
`table`, `statistics`, `guidance`, `figures` and `report`.
"""
