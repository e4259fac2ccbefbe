"""Input pipelines alone: each case from start to verdict."""


def test_host_pipeline(case, measure):
    measure(case)
