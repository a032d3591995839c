"""Solutions between the ends of a step."""
