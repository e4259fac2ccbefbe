"""Names of sizes, the cases that a selection makes of them, and the contract of a layer's file."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from bench import backends, devices, registry, workloads
from bench.cases import dimension as size
from bench.cases.case import AXES, Case, Settings
from bench.cases.dimension import Dimension
from bench.selection import Selection, require_possible

pytestmark = pytest.mark.floor
TWO = {"hidden": Dimension("h", "units"), "steps": Dimension("t", "steps"), "bias": size.BIAS}
EIGHT = {"hidden": 8, "steps": 3, "bias": "on"}


@pytest.mark.parametrize(
    "values, name",
    [
        (EIGHT, "h8_t3"),
        ({"steps": 3, "bias": "off", "hidden": 8}, "h8_t3_biasoff"),
    ],
)
def test_a_size_is_named_by_its_letters_in_the_order_of_the_dimensions(values, name):
    assert size.name(TWO, values) == name


def test_what_is_left_out_is_the_first_choice():
    assert size.with_defaults(TWO, {"steps": 3, "hidden": 8}) == {"hidden": 8, "steps": 3, "bias": "on"}


def test_a_number_may_not_be_left_out():
    with pytest.raises(AssertionError, match="no value for: units"):
        size.with_defaults(TWO, {"steps": 3})


def test_a_number_with_a_default_may():
    groups = {"groups": Dimension("n", "groups", default=32)}

    assert size.with_defaults(groups, {}) == {"groups": 32}
    assert [size.name({**TWO, **groups}, {**EIGHT, "groups": count}) for count in (32, 8)] == ["h8_t3", "h8_t3_n8"]


@pytest.mark.parametrize(
    "layer, name",
    [
        ("conv", "w1920_h1080_c4_f64_k4_p3_s2"),
        ("dense", "u1024"),
        ("grouped_conv", "c64_f64_k3_s1_i56_r10_g1"),
        ("gru", "h128_i128_t5"),
        ("hmc", "l5_n1000"),
        ("lstm", "h128_t5"),
        ("lstm_multi", "n2_h256_i16_t200"),
        ("rnn", "h128_t5"),
    ],
)
def test_names_of_default_sizes_are_a_public_contract(layer, name):
    assert next(iter(workloads.named_sizes(workloads.load(layer)))) == name


def test_choices_other_than_the_first_are_in_a_name():
    assert "u256_relu" in workloads.named_sizes(workloads.load("dense"))
    assert "h32_t1_biasoff_nll" in workloads.named_sizes(workloads.load("lstm"))


@pytest.mark.parametrize("text, value", [("1", 1), ("1000000", 10**6), (" 7 ", 7)])
def test_a_dimension_takes_whole_numbers(text, value):
    assert Dimension("t", "steps").parse(text) == value


@pytest.mark.parametrize(
    "text, said",
    [
        ("0", "0 is not within 1 to 1000000"),
        ("1000001", "1000001 is not within"),
        ("-1", "-1 is not within"),
        ("x", "'x' is not a whole number"),
        ("1.5", "'1.5' is not a whole number"),
        ("", "'' is not a whole number"),
        ("1e3", "'1e3' is not a whole number"),
    ],
)
def test_a_dimension_refuses_other_values_by_name(text, said):
    with pytest.raises(ValueError, match=said):
        Dimension("t", "steps").parse(text)


def test_a_dimension_of_choices_takes_only_those():
    assert size.BIAS.parse("off") == "off"
    with pytest.raises(ValueError, match="'maybe' is not one of on, off"):
        size.BIAS.parse("maybe")


def test_another_spelling_of_a_choice_is_that_choice():
    norm = Dimension("", "norms", choices=("batch", "group"), aliases={"bn": "batch"})

    assert [norm.parse(text) for text in ("bn", "batch", "group")] == ["batch", "batch", "group"]
    with pytest.raises(ValueError, match="'gn' is not one of batch, group"):
        norm.parse("gn")


def test_off_and_on_are_a_flag_and_named_by_its_letter_alone():
    flag, choice = Dimension("fast", "", choices=("off", "on")), size.BIAS

    assert (flag.flag, choice.flag) == (True, False)
    assert [flag.name_part("off"), flag.name_part("on"), choice.name_part("on"), choice.name_part("off")] == [
        "",
        "fast",
        "",
        "biasoff",
    ]


def ids(**axes):
    return [case.id for case in Selection(**axes).cases()]


def test_an_id_is_made_of_all_axes():
    assert ids(workloads=["lstm"]) == ["lstm-h128_t5-inference-b1-fp32-x1-torch-cpu"]


def test_backends_of_one_case_stand_side_by_side():
    found = ids(workloads=["rnn", "dense"], modes=["inference", "training"], backends=["torch", "numpy"])

    assert found == [
        "rnn-h128_t5-inference-b1-fp32-x1-torch-cpu",
        "rnn-h128_t5-inference-b1-fp32-x1-numpy-cpu",
        "rnn-h128_t5-training-b1-fp32-x1-torch-cpu",
        "rnn-h128_t5-training-b1-fp32-x1-numpy-cpu",
        "dense-u1024-inference-b32-fp32-x1-torch-cpu",
        "dense-u1024-inference-b32-fp32-x1-numpy-cpu",
        "dense-u1024-training-b32-fp32-x1-torch-cpu",
        "dense-u1024-training-b32-fp32-x1-numpy-cpu",
    ]


def test_every_axis_multiplies():
    found = ids(
        workloads=["rnn"],
        modes=["inference", "eval"],
        batch_sizes=[1, 2, 3],
        precisions=["fp32", "bf16"],
        replicas=[1, 2],
        devices=["cpu", "cuda"],
        backends=["torch", "numpy"],
    )

    assert len(found) == len(set(found)) == 2 * 3 * 2 * 2 * 2 * 2


def test_a_size_brings_its_own_batch_unless_one_is_given():
    assert [case.batch_size for case in Selection(["dense"], ["all"]).cases()] == [32, 128, 4]
    assert [case.batch_size for case in Selection(["dense"], ["all"], batch_sizes=[7]).cases()] == [7, 7, 7]


def test_one_size_has_one_name_however_it_was_asked_for():
    """The default size by its name, by its numbers, and as what another size becomes."""
    named = ids(workloads=["lstm"], sizes=["h128_t5"])
    numbered = ids(workloads=["lstm"], dimensions={"timesteps": [5], "hidden_size": [128]})
    spelt = ids(workloads=["lstm"], dimensions={"bias": ["on"], "rnn_impl": ["fused"], "loss": ["cross_entropy"]})

    assert named == numbered == spelt == ids(workloads=["lstm"])


def test_lists_of_dimensions_multiply_and_one_size_comes_once():
    cases = list(Selection(["rnn"], dimensions={"hidden_size": [128, 8], "timesteps": [5, 2]}).cases())

    assert [case.size for case in cases] == ["h128_t5", "h128_t2", "h8_t5", "h8_t2"]
    assert cases[-1].dimensions == {"hidden_size": 8, "timesteps": 2, "rnn_impl": "fused"}


def test_sizes_that_an_override_makes_alike_come_once():
    found = [case.size for case in Selection(["rnn"], ["all"], dimensions={"hidden_size": [8]}).cases()]

    assert found == ["h8_t5", "h8_t25", "h8_t50", "h8_t150"]


def test_a_dimension_is_ignored_by_layers_that_do_not_have_it():
    found = [case.size for case in Selection(["dense", "rnn"], dimensions={"timesteps": [2]}).cases()]

    assert found == ["u1024", "h128_t2"]


def test_a_size_by_name_selects_the_layers_that_have_it():
    assert [case.workload for case in Selection(["dense", "gru", "lstm", "rnn"], ["h128_t5"]).cases()] == [
        "lstm",
        "rnn",
    ]


def test_an_unknown_size_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no size 'h1_t1'; there are first, all, or names such as u1024 \(dense\)"):
        Selection(["dense"], ["h1_t1"]).require_known_sizes()


def test_an_impossible_size_is_refused_with_its_layer_before_anything_runs():
    case = next(iter(Selection(["grouped_conv"], dimensions={"group_dim": [7]}).cases()))

    with pytest.raises(ValueError, match=r"grouped_conv: group_dim=7 must divide filter_out=64"):
        require_possible(case)


def test_cases_and_settings_survive_as_plain_data():
    case = next(iter(Selection(["lstm"]).cases()))

    assert Case(**case.plain()) == case
    assert Settings(**Settings(cores=[1]).plain()) == Settings(cores=[1])
    assert set(AXES) | {"dimensions", "own"} == set(case.plain())


@pytest.mark.parametrize("layer", workloads.names("layers"))
def test_a_layer_keeps_the_contract(layer):
    module, source = workloads.load(layer), registry.load(workloads.LAYERS, layer)

    assert module.item.isalpha()
    assert source.__doc__.splitlines()[0].endswith(".")
    assert [part for part in ("Shapes", "Item", "Source") if part not in source.__doc__] == []
    assert hasattr(source, "loss") == hasattr(source, "LEARNING_RATE")
    assert module.tiny
    assert set(inspect.signature(module.build).parameters) == {"net", *module.dimensions}
    for values in (*module.sizes, module.tiny):
        assert set(values) - {"batch_size"} <= set(module.dimensions)
        assert set(module.dimensions) - set(values) <= {k for k, d in module.dimensions.items() if d.choices}


@pytest.mark.parametrize("layer", workloads.names("layers"))
def test_every_named_size_is_possible_and_has_a_name_of_its_own(layer):
    module = workloads.load(layer)
    named = workloads.named_sizes(module)

    assert len(named) == len(module.sizes)
    for name, values in named.items():
        assert "-" not in name
        for mode in ("inference", "training") if module.loss else ("inference",):
            dimensions = {key: values[key] for key in module.dimensions}
            assert workloads.record(module, dimensions, 2, mode).output.shape[0] == 2


@pytest.mark.parametrize("layer", workloads.names("layers"))
def test_values_of_a_layer_are_within_its_dimensions(layer):
    module = workloads.load(layer)

    for values in (*module.sizes, module.tiny):
        for key, dimension in module.dimensions.items():
            assert key not in values or dimension.parse(str(values[key])) == values[key]


def test_a_dimension_means_the_same_in_every_workload():
    """But for the default, which an image network has of its own: its classes, its groups."""
    for name, dimension in workloads.dimensions(workloads.names()).items():
        having = [workloads.load(each).dimensions for each in workloads.names()]
        meant = [dataclasses.replace(found[name], default=None) for found in having if name in found]
        assert [each for each in meant if each != dataclasses.replace(dimension, default=None)] == []


def test_no_number_of_a_layer_has_a_default():
    """It would leave the names of sizes, and with them every stored baseline."""
    dimensions = workloads.dimensions(workloads.names("layers"))

    assert [
        name for name, dimension in dimensions.items() if not dimension.choices and dimension.default is not None
    ] == []


@pytest.mark.parametrize("package", ["bench.workloads.layers", "bench.backends", "bench.devices"])
def test_a_name_that_is_not_in_a_folder_is_refused_with_those_that_are(package):
    kind = package.rsplit(".", 1)[-1][:-1]

    with pytest.raises(ValueError, match=f"{kind} 'tourch'.* is not one of {', '.join(registry.names(package))}"):
        registry.load(package, "tourch")
    with pytest.raises(ValueError, match=f"{kind} '__init__'"):
        registry.load(package, "__init__")


def test_files_that_start_with_an_underscore_are_not_in_a_registry():
    assert [name for name in [*backends.names(), *devices.names()] if name.startswith("_")] == []


def test_no_part_of_an_id_holds_its_separator():
    for each in workloads.names():
        for case in Selection([each], ["all"], backends=backends.names()).cases():
            assert case.id.count("-") == 7
