"""Systems of nonlinear equations and fixed points: the handlers, their loop and what plugs into it."""
