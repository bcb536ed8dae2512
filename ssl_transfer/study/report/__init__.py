"""The report: one page that says which pretraining to take, how sure that is, and everything it rests on."""
