"""Input pipelines alone: the path of the data, from a case to a verdict."""


def test_host_pipeline(case, require, measure, publish, judge):
    require(case)
    result = measure(case)
    publish(result)
    judge(result)
