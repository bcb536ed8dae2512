"""The report: a page with the recommended pretraining, its uncertainty, and all evidence."""
