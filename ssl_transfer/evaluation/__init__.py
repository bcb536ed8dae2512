"""The stage `evaluate`: what a backbone is worth on a task, by one protocol."""
