import pytest

# Before the first of them is imported: they import each other.
pytest.register_assert_rewrite("fixtures")

pytest_plugins = [
    "fixtures.options",
    "fixtures.processes.hosts",
    "fixtures.processes.launched",
    "fixtures.own",
    "fixtures.cases",
    "fixtures.devices",
    "fixtures.processes.xdist",
    "fixtures.judge",
    "fixtures.publish",
    "fixtures.measure",
    "fixtures.saving",
    "fixtures.terminal",
    "fixtures.processes.gather",
]
