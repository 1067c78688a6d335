"""Keys as their owners declare them, and what is to be said of one beyond its traffic."""
