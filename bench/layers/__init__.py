"""Single layers: one file each. bench/workload.py states what such a file must hold."""
