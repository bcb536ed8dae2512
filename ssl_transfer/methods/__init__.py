"""Self-supervised methods. A method is a page; a recipe names it by its key here."""
