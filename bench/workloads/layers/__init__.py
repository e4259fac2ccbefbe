"""Single layers: one file each. bench/workloads/ states what such a file must hold."""
