"""The sections of the report: each module has one, as `section(evidence) -> Section | None`."""
