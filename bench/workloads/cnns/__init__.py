"""Families of image networks, one file each. No file imports a framework."""
