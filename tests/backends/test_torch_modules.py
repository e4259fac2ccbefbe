"""How graphs become torch modules: the idiom that a user would have written."""

from __future__ import annotations

import pytest

from bench.graph import Graph, draws


@pytest.fixture
def torch():
    """Not imported where the tests are collected: that takes seconds in every process."""
    return pytest.importorskip("torch")


def lowered(build):
    from bench.backends.torch import lowering

    net = Graph(2)
    net.output = build(net)
    return lowering.Lowered(net, draws.weights(net, "float32")).module


def test_one_operation_is_the_bare_module(torch):
    assert isinstance(lowered(lambda net: net.dense(net.input(4), 3)), torch.nn.Linear)


def test_a_chain_is_a_sequential(torch):
    made = lowered(lambda net: net.relu(net.dense(net.input(4), 3)))

    assert [type(part) for part in made] == [torch.nn.Linear, torch.nn.ReLU]


@pytest.mark.parametrize(("widths", "layers"), [((5, 5, 5), [3]), ((5, 6), [1, 1]), ((5, 5, 6), [2, 1])])
def test_recurrent_layers_of_one_width_are_one_module(torch, widths, layers):
    def stack(net):
        x = net.input(3, 4)
        for width in widths:
            x = net.lstm(x, width)
        return net.relu(x)

    made = lowered(stack)

    assert [part.num_layers for part in made if isinstance(part, torch.nn.LSTM)] == layers


def test_a_second_bias_that_the_graph_does_not_have_stays_zero_and_untrained(torch):
    made = lowered(lambda net: net.lstm(net.input(3, 4), 5))

    assert not made.bias_hh_l0.requires_grad
    assert float(made.bias_hh_l0.abs().sum()) == 0.0
    assert made.bias_ih_l0.requires_grad
