"""Shapes, weights, costs and fingerprints of graphs, against numbers worked out by hand."""

from __future__ import annotations

import itertools

import pytest

from bench import workloads
from bench.graph import Graph

pytestmark = pytest.mark.floor


def default(layer: str, mode: str = "inference", **changed: object) -> Graph:
    """The graph of a layer's first size, at that size's own batch, with some dimensions changed."""
    module = workloads.load(layer)
    size = {**next(iter(workloads.named_sizes(module).values())), **changed}
    return workloads.record(module, {key: size[key] for key in module.dimensions}, int(size["batch_size"]), mode)


def tiny(layer: str, mode: str = "inference", batch_size: int = 4, **changed: object) -> Graph:
    module = workloads.load(layer)
    size = {**next(iter(workloads.named_sizes(module).values())), **module.tiny, **changed}
    return workloads.record(module, {key: size[key] for key in module.dimensions}, batch_size, mode)


def by_hand(layer: str, parameters: int, flops: int, moved: int, output: tuple) -> object:
    return pytest.param(layer, parameters, flops, moved, output, id=layer)


DEFAULTS = [
    by_hand("conv", 4160, 4_271_341_568, 8_294_400 + 4160 + 33_369_856, (1, 64, 542, 962)),
    by_hand("dense", 1_049_600, 67_108_864, 32_768 + 1_049_600 + 32_768, (32, 1024)),
    by_hand("grouped_conv", 5760, 36_126_720, 200_704 + 5760 + 200_704, (1, 64, 56, 56)),
    by_hand("gru", 99_072, 983_040, 640 + 99_072 + 640, (1, 5, 128)),
    by_hand("hmc", 0, 0, 1000, (1, 1000, 1)),
    by_hand("lstm", 131_584, 1_310_720, 640 + 131_584 + 640, (1, 5, 128)),
    by_hand("lstm_multi", 805_121, 321_126_912, 3200 + 805_121 + 1, (1, 1)),
    by_hand("rnn", 32_896, 327_680, 640 + 32_896 + 640, (1, 5, 128)),
]


@pytest.mark.parametrize("layer, parameters, flops, moved, output", DEFAULTS)
def test_a_default_size_weighs_and_costs_what_paper_says(layer, parameters, flops, moved, output):
    graph = default(layer)

    assert graph.output.shape == output
    assert graph.parameters == parameters
    assert graph.flops == flops
    assert graph.elements_moved == moved


def test_numbers_by_hand_are_of_layers_that_are_there():
    assert {row.id for row in DEFAULTS} <= set(workloads.names("layers"))


@pytest.mark.parametrize("layer", ["rnn", "lstm", "gru", "lstm_multi"])
def test_a_cell_in_a_loop_weighs_and_costs_what_the_fused_layer_does(layer):
    fused, cell = default(layer), default(layer, rnn_impl="cell")

    assert cell.output.shape == fused.output.shape
    assert (cell.parameters, cell.flops) == (fused.parameters, fused.flops)
    assert cell.elements_moved == fused.elements_moved
    assert cell.fingerprint != fused.fingerprint


def test_an_lstm_without_bias_has_only_its_two_matrices():
    graph = default("lstm", hidden_size=32, timesteps=1, bias="off", loss="nll")

    assert graph.parameters == 8192
    assert graph.flops == 16_384


def test_a_relu_counts_no_operation():
    assert default("dense", activation="relu").flops == default("dense").flops


def test_a_primitive_that_states_no_cost_cannot_be_recorded():
    net = Graph(1)
    x = net.input(3)

    with pytest.raises(TypeError, match="flops"):
        net._add("attention", [x], [x.shape])


@pytest.mark.parametrize("layer", workloads.names("layers"))
def test_costs_grow_with_the_batch_and_weights_do_not(layer):
    one, many = tiny(layer, batch_size=1), tiny(layer, batch_size=7)

    assert many.flops == 7 * one.flops
    assert many.parameters == one.parameters
    assert many.elements_moved - many.parameters == 7 * (one.elements_moved - one.parameters)


@pytest.mark.parametrize("layer", [name for name in workloads.names("layers") if workloads.load(name).loss])
def test_training_adds_a_scalar_loss_and_no_weight(layer):
    plain, trained = tiny(layer), tiny(layer, "training")

    assert trained.loss.shape == ()
    assert trained.weights == plain.weights
    assert trained.flops == plain.flops


def test_labels_are_moved_as_well():
    assert default("lstm", "training").elements_moved - default("lstm").elements_moved == 640


def test_labels_of_the_old_softmax_are_one_integer_a_time_step():
    graph = tiny("lstm", "eval", loss="nll")

    assert [node.shape for node in graph.inputs.values()] == [(4, 3, 8), (4, 3)]


def chain(**changed: object) -> list:
    return [node for node in default("grouped_conv", **changed).nodes if node.op == "conv"]


STRIDED = {"input_size": 112, "stride": 3, "filter_in": 32, "filter_out": 16}


def test_a_strided_chain_shrinks_to_one_pixel_and_goes_on():
    assert [node.shape[2:] for node in chain(**STRIDED)] == [(size, size) for size in (38, 13, 5, 2, 1, 1, 1, 1, 1, 1)]


def test_a_narrowing_chain_keeps_the_depth_of_its_kernels():
    nodes = chain(**STRIDED)

    assert [node.attrs["groups"] for node in nodes] == [16] + 9 * [8]
    assert {node.weights[0].shape for node in nodes} == {(16, 2, 3, 3)}
    # 38, 13, 5, 2 and six times 1, squared: 1648 pixels of 16 filters of 2 x 9 products.
    assert default("grouped_conv", **STRIDED).flops == 2 * 1648 * 16 * 18
    assert default("grouped_conv", **STRIDED).parameters == 10 * 288


def test_group_dim_is_filters_in_a_group():
    nodes = chain(block_repeats=20, group_dim=8)

    assert [node.attrs["groups"] for node in nodes] == 20 * [8]
    assert {node.weights[0].shape for node in nodes} == {(64, 8, 3, 3)}


def fits(size: int, kernel_size: int, stride: int, before: int, after: int) -> int:
    """How often a kernel finds room: counted, not computed."""
    count, start = 0, -before
    while start + kernel_size <= size + after:
        count, start = count + 1, start + stride
    return count


def test_a_convolution_has_as_many_pixels_as_its_kernel_finds_room():
    for size, kernel_size, stride, padding in itertools.product(range(1, 10), range(1, 6), range(1, 5), range(3)):
        expected = fits(size, kernel_size, stride, padding, padding)
        net = Graph(1)
        image = net.input(1, size, 9)
        if expected:
            assert net.conv(image, 1, kernel_size, stride=stride, padding=padding).shape[2] == expected
        else:
            with pytest.raises(ValueError, match=f"kernel_size={kernel_size}"):
                net.conv(image, 1, kernel_size, stride=stride, padding=padding)


def test_same_padding_keeps_a_pixel_of_every_stride_and_puts_the_odd_one_at_the_end():
    for size, kernel_size, stride in itertools.product(range(1, 20), range(1, 8), range(1, 6)):
        net = Graph(1)

        out = net.conv(net.input(1, size, size), 1, kernel_size, stride=stride, padding="same")
        (before, after), _ = net.nodes[-1].attrs["pads"]

        assert out.shape[2] == (size + stride - 1) // stride == fits(size, kernel_size, stride, before, after)
        assert after - before in (0, 1)


IMPOSSIBLE = [
    ("conv", {"kernel_size": 14, "padding": 3}, ["14", "3", "7x9"]),
    ("grouped_conv", {"group_dim": 3}, ["3", "4"]),
    ("grouped_conv", {"filter_in": 6, "filter_out": 4}, ["4", "6"]),
    ("grouped_conv", {"filter_in": 32, "filter_out": 4}, ["8", "4"]),
    ("hmc", {"leapfrog_steps": 4}, ["4"]),
]


@pytest.mark.parametrize("layer, changed, numbers", IMPOSSIBLE)
def test_an_impossible_size_is_refused_by_its_numbers(layer, changed, numbers):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the numbers are looked for below
        tiny(layer, **changed)

    assert [number for number in numbers if number not in str(refused.value)] == []


def test_groups_that_do_not_divide_the_channels_are_refused():
    net = Graph(1)

    with pytest.raises(ValueError, match=r"groups=3 must divide the input channels \(8\) and the filters \(6\)"):
        net.conv(net.input(8, 5, 5), 6, 3, groups=3)


@pytest.mark.parametrize("operation", ["add", "sub", "mul", "squared_error", "softmax_cross_entropy"])
def test_operands_of_different_shapes_are_refused(operation):
    net = Graph(2)
    three, five = net.input(3), net.input(5)

    with pytest.raises(ValueError, match=r"3.*5"):
        getattr(net, operation)(three, five)


@pytest.mark.parametrize("layer", workloads.names("layers"))
def test_the_same_recording_has_the_same_fingerprint(layer):
    assert tiny(layer).fingerprint == tiny(layer).fingerprint
    assert len(tiny(layer).fingerprint) == 12


@pytest.mark.parametrize(
    "layer, changed",
    [
        ("lstm", {"hidden_size": 9}),
        ("lstm", {"timesteps": 4}),
        ("lstm", {"bias": "off"}),
        ("lstm", {"rnn_impl": "cell"}),
        ("lstm", {"batch_size": 5}),
        ("lstm", {"mode": "eval"}),
        ("dense", {"activation": "none"}),
        ("conv", {"stride": 1}),
        ("conv", {"kernel_size": 2, "padding": 2}),
        ("grouped_conv", {"filter_in": 8, "filter_out": 8, "group_dim": 2}),
        ("hmc", {"leapfrog_steps": 1}),
    ],
)
def test_a_fingerprint_changes_with_what_is_computed(layer, changed):
    assert tiny(layer, **changed).fingerprint != tiny(layer).fingerprint


@pytest.mark.parametrize(
    "name, mode, fingerprint",
    [
        ("conv", "training", "23b2ea44028c"),
        ("hmc", "inference", "2a8b106f5181"),
        ("lstm", "inference", "cadd9f4666d6"),
        ("lstm", "training", "7a597738dd3c"),
        ("efficientnet_b0", "inference", "0c283292750c"),
        ("resnet50", "inference", "10639761526b"),
    ],
)
def test_fingerprints_are_those_of_baselines_that_are_stored(name, mode, fingerprint):
    """At the first size, two rows; noted in November 2026."""
    module = workloads.load(name)
    size = next(iter(workloads.named_sizes(module).values()))

    graph = workloads.record(module, {key: size[key] for key in module.dimensions}, 2, mode)

    assert graph.fingerprint == fingerprint


def test_a_fingerprint_changes_with_the_loss():
    assert tiny("lstm", "eval", loss="nll").fingerprint != tiny("lstm", "eval").fingerprint


def test_a_fingerprint_tells_drawn_numbers_from_given_ones():
    module = workloads.load("hmc")

    drawn = workloads.record(module, module.tiny, 4, "inference")
    given = workloads.record(module, module.tiny, 4, "inference", random_as_inputs=True)

    assert drawn.fingerprint != given.fingerprint
    assert [node.shape for node in given.inputs.values()] == [(4, 6, 1), (4, 6, 1)]
    assert drawn.inputs == {}


@pytest.mark.parametrize("scale, shift", [(2.0, 0.0), (1.0, 1.0)])
def test_a_fingerprint_changes_with_a_constant(scale, shift):
    def scaled(scale: float, shift: float) -> str:
        net = Graph(1)
        net.output = net.affine(net.input(1), scale, shift)
        return net.fingerprint

    assert scaled(scale, shift) != scaled(1.0, 0.0)


def loop(which: int) -> str:
    """A loop that computes a sum and a product, and carries one of them."""
    net = Graph(1)

    def body(net, states, slices):
        both = [net.add(states[0], slices[0]), net.mul(states[0], slices[0])]
        return [both[which]]

    net.output = net.scan(body, [net.fill(0.5, 2)], [net.input(3, 2)])
    return net.fingerprint


def test_a_fingerprint_changes_with_what_a_loop_carries():
    assert loop(0) != loop(1)


def test_a_fingerprint_changes_with_which_result_of_a_node_is_the_output():
    def cell(which: int) -> str:
        net = Graph(1)
        x, h, c = net.input(3), net.input(2), net.input(2)
        net.output = net.cell("lstm", x, [h, c])[which]
        return net.fingerprint

    assert cell(0) != cell(1)
