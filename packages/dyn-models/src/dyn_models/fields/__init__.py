"""Parts of vector fields."""
