"""Single layers, one file each. `bench/workloads/` has the contract of such a file."""
