"""How things are measured: times, operations, and what two of them are beside each other."""
