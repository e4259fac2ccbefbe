"""The case and its settings: dimensions, precision, recipe of training and options of IPUs. Plain data."""
