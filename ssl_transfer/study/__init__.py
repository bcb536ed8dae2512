"""A study: many evaluations from one YAML, the statistics over them, and the report that says what they mean.

Data goes one way: `design` (the YAML) → `planning` → `plan` (jobs) → `engine` (records, results) → `findings` → `statistics` →
`report`. Nothing here imports torch, and importing this package imports nothing at all.
"""
