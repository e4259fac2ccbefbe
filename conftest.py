import pytest

# Before the first of them is imported: they import each other.
pytest.register_assert_rewrite("fixtures")

pytest_plugins = [
    "fixtures.options",
    "fixtures.start",
    "fixtures.cases",
    "fixtures.devices",
    "fixtures.measure",
    "fixtures.judge",
    "fixtures.publish",
    "fixtures.saving",
    "fixtures.terminal",
    "fixtures.processes.xdist",
    "fixtures.processes.gather",
]
