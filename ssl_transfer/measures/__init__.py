"""Measures: pure functions of arrays. Neighbours, geometry, logistic regression, metrics, agreement, transferability."""
