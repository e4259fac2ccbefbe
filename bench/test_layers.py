"""Single layers: the path of the data, from a case to a verdict."""


def test_layer(case, require, measure, publish, judge):
    require(case)
    result = measure(case)
    publish(result)
    judge(result)
