"""The stage `evaluate`: how well a backbone performs on a task, by one protocol."""
