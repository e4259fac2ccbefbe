pytest_plugins = [
    "fixtures.options",
    "fixtures.cases",
    "fixtures.baseline",
    "fixtures.measure",
    "fixtures.publish",
    "fixtures.saving",
    "fixtures.report",
]
