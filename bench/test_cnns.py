"""Image networks: the path of the data, from a case to a verdict."""


def test_cnn(case, require, measure, publish, judge):
    require(case)
    result = measure(case)
    publish(result)
    judge(result)
