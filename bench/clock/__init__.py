"""How long it takes: the clock, and what is done around it."""
