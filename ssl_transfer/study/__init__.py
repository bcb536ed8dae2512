"""A study: many evaluations from one YAML, their statistics, and a report.

Data flows in one direction: `design` (the YAML) → `planning` → `plan` (jobs) → `engine` (records, results) → `gather` →
`statistics` → `report`. Nothing here imports torch, and importing this package imports nothing at all.
"""
