"""The names of nodes: different in tables, and found again in the names that frameworks make of them."""

from __future__ import annotations

import re

import pytest

from bench.graph import Graph, naming


def graph_of(*names):
    net = Graph(1)
    x = net.input(4)
    for name in names:
        x = net.relu(net.dense(x, 4, name=name))
    net.output = x
    return net


def test_a_node_is_named_after_its_weights_or_after_its_block_and_primitive():
    net = Graph(1)
    with net.in_block("layer1.0"):
        net.relu(net.conv(net.image(3, 8), 4, 3, name="layer1.0.conv1"))

    assert naming.names(net.nodes) == ["layer1.0.input0", "layer1.0.conv1", "layer1.0.relu2"]


def test_a_node_without_a_name_of_its_own_is_named_after_its_primitive():
    assert naming.names(graph_of("").nodes) == ["input0", "dense1", "relu2"]


@pytest.mark.parametrize(
    "names",
    [("fc", "fc"), ("a/b", "a b"), ("x" * 99, "x" * 98), ("\n", "\x1b[0m"), ("n3_y", "n1_y"), ("relu2", "dense3")],
)
def test_names_differ_and_scopes_lead_back_to_their_nodes(names):
    nodes = graph_of(*names).nodes
    scopes = [naming.scope(index, node) for index, node in enumerate(nodes)]

    assert len(set(naming.names(nodes))) == len(nodes)
    assert all(name.isprintable() and len(name) < 80 for name in naming.names(nodes))
    assert [naming.indexes(scope) for scope in scopes] == [(index,) for index in range(len(nodes))]
    # What TensorFlow takes for a scope.
    assert all(re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*", scope) for scope in scopes)


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("n12_layer1.0.conv1/Conv2D:_FusedConv2D", (12,)),
        ("gradient_tape/n3_fc/MatMul/MatMul_1", (3,)),
        ("n8_layer1.relu_0_nchwc_kernel_time", (8,)),
        ("Multiply_7953,n169_bn.BatchNormalization1,n170_add.Add2", (169, 170)),
        ("bn1_relu/cnn2_x/a.n3_b", ()),
        ("aten::conv2d", ()),
    ],
)
def test_the_nodes_are_found_in_the_names_that_frameworks_make(text, indexes):
    assert naming.indexes(text) == indexes
