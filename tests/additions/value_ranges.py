"""A new section of the report: smallest and largest value of every arm."""

from __future__ import annotations

from ssl_transfer.study.statistics.ranges import value_ranges

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render


def section(evidence: Evidence) -> Section:
    """A sentence and a table."""
    table = value_ranges(evidence.runs)
    html = render(evidence, "<p>Ranges of {{ count }} arms.</p>", count=len(table))
    return Section(title="Value ranges", html=html, tables={"ranges": table})
