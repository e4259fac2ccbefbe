"""Where it runs: workers, replicas, launchers, hosts."""
