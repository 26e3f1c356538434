"""How much a candidate looks like the examples."""
