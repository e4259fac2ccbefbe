"""The calls of a program of Inductor, as torch 2.13 reported them, and the nodes that they compute."""

from __future__ import annotations

import importlib.util

import pytest

from bench.graph import Graph

NORM = {"eps": 1e-5, "momentum": 0.1}
# The call, and the shapes of its tensors.
CALLS = [
    ("mkldnn::_convolution_pointwise", [(2, 3, 32, 32), (16, 3, 3, 3), (16,)]),
    ("aten::empty", [()]),
    ("graph_0_cpp_fused_max_pool2d_with_indices_0", []),
    ("mkldnn::_convolution_pointwise", [(2, 16, 16, 16), (16, 16, 3, 3), (16,)]),
    ("mkldnn::_convolution_pointwise", [(2, 16, 16, 16), (32, 16, 3, 3), (32,)]),
    ("mkldnn::_convolution_pointwise_", [(2, 32, 16, 16), (2, 16, 16, 16), (32, 16, 1, 1), (32,)]),
    ("graph_0_cpp_fused_mean_1", []),
    ("mkl::_mkl_linear", [(2, 32), (1459233, 1), (10, 32)]),
    ("graph_0_cpp_fused_addmm_mean_2", []),
]


def network():
    net = Graph(2)
    x = net.relu(net.batch_norm(net.conv(net.image(3, 32), 16, 3, padding=1, bias=False), **NORM))
    x = net.max_pool(x, 3, stride=2, padding=1)
    y = net.relu(net.batch_norm(net.conv(x, 16, 3, padding=1, bias=False), **NORM))
    y = net.batch_norm(net.conv(y, 32, 3, padding=1, bias=False), **NORM)
    x = net.relu(net.add(y, net.batch_norm(net.conv(x, 32, 1, bias=False), **NORM)))
    net.output = net.dense(net.global_mean(x), 10)
    return net


@pytest.fixture
def matched():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    from bench.backends.torch import inductor

    return inductor.matched


def test_each_call_gets_the_nodes_that_it_computes(matched):
    assert matched(network(), CALLS) == [(1,), (), (4,), (5,), (8,), (10,), (14,), (15,), (15,)]


def test_a_branch_that_runs_first_is_found_by_its_shapes(matched):
    order = [0, 2, 5, 3, 4, 6, 7]

    found = matched(network(), [CALLS[index] for index in order])

    assert found == [(1,), (4,), (10,), (5,), (8,), (14,), (15,)]


def test_a_call_that_fits_no_node_has_none(matched):
    assert matched(network(), [("aten::addmm", [(9, 9), (9, 9)]), ("mystery", [])]) == [(), ()]
