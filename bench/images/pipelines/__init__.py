"""One file per input pipeline; bench/images/pipeline.py is their contract."""
