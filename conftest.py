import pytest

# Before the first import of these modules, since they import each other.
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
    "fixtures.report",
    "fixtures.terminal",
    "fixtures.processes.xdist",
    "fixtures.processes.gather",
]
