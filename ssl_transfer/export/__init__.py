"""Export: a backbone, or a fitted probe with its backbone, in a form that other programs read."""
