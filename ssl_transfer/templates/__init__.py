"""A recipe, a task card and a study for a store of one's own."""
