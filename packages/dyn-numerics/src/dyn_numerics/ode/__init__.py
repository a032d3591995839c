"""Initial value problems: the handler, its loop and what plugs into it."""
