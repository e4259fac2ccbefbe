"""Image networks, one file a family: importing a file imports no framework."""
