"""Single layers: each case from start to verdict."""


def test_layer(case, measure):
    measure(case)
