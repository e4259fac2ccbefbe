"""Image networks: each case from start to verdict."""


def test_cnn(case, measure):
    measure(case)
