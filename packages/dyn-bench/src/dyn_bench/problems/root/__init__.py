"""Equations `g(z) = 0` and `h(z) = z` whose solutions are known, each in a file."""
