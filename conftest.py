pytest_plugins = [
    "fixtures.hosts",
    "fixtures.launched",
    "fixtures.options",
    "fixtures.cases",
    "fixtures.xdist",
    "fixtures.baseline",
    "fixtures.measure",
    "fixtures.publish",
    "fixtures.saving",
    "fixtures.report",
    "fixtures.gather",
]
