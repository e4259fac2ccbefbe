"""Options of image networks and of training that cannot be, or contradict each other: one line, and nothing is lost."""

from __future__ import annotations

from dataclasses import fields
from typing import Callable, Dict, List, Sequence

import pytest
from collecting import Collected, collect
from suite import Suite

from bench.cases.recipe import Recipe
from bench.workloads.network import models
from fixtures import options
from fixtures.options import parsing
from fixtures.options.table import OPTIONS

NETWORK = ("--model", "resnet8")
TRAINING = (*NETWORK, "--mode", "training")

RECIPE = [field.name for field in fields(Recipe)]
# What each option of a recipe refuses, and what the one line must say of it.
OUTSIDE: Dict[str, Dict[str, str]] = {
    "optimiser": {"adamax": "'adamax' (did you mean adam?) is not one of sgd", "": "an empty value"},
    "momentum": {"-0.1": "-0.1 is not within 0 to 1", "1.1": "1.1", "nan": "nan", "much": "'much' is not a number"},
    "rmsprop_decay": {"-0.1": "-0.1 is not within 0 to 1", "1.1": "1.1 is not within 0 to 1"},
    "optimiser_epsilon": {"-1e-9": "-1e-9 is not within 0 to 1", "2": "2 is not within 0 to 1"},
    "weight_decay": {"-1e-9": "-1e-9 is not within 0 to 1", "2": "2 is not within 0 to 1"},
    "gradient_accumulation": {"0": "0 is not within 1 to", "100001": "100001", "1.5": "'1.5' is not a whole number"},
    "recompute": {"some": "'some' is not one of none, auto, manual"},
    "recompute_layers": {"(": "'(' is not a regular expression", "[a-": "'[a-' is not a regular expression"},
    "loss_scaling": {"0": "0 is not within", "-1": "-1 is not within", "inf": "inf is not within"},
    "label_smoothing": {"-0.1": "-0.1 is not within 0 to 0.999", "1": "1 is not within 0 to 0.999"},
    "label_smoothing_definition": {"keras": "'keras' is not one of "},
    "mixup_alpha": {"-1": "-1 is not within 0 to 100", "101": "101 is not within 0 to 100"},
    "cutmix_lambda": {"-0.1": "-0.1 is not within 0 to 1", "1.1": "1.1 is not within 0 to 1"},
    "cutmix_lambda_low": {"-0.1": "-0.1 is not within 0 to 1", "1.1": "1.1 is not within 0 to 1"},
    "cutmix_lambda_high": {"-0.1": "-0.1 is not within 0 to 1", "1.1": "1.1 is not within 0 to 1"},
    "cutmix_disable_prob": {"-0.1": "-0.1 is not within 0 to 1", "1.1": "1.1 is not within 0 to 1"},
    "learning_rate": {"-1": "-1 is not within 0 to 1000", "1001": "1001 is not within 0 to 1000"},
    "base_learning_rate_exponent": {"-61": "-61 is not within -60 to 10", "11": "11 is not within -60 to 10"},
    "lr_schedule": {"step": "'step' (did you mean stepped?) is not one of constant, stepped"},
    "warmup_epochs": {"-1": "-1 is not within 0 to 10000", "soon": "'soon' is not a number"},
    "lr_drops": {"0": "0 is not within 1 to 1000000", "2.5": "'2.5' is not a whole number", "a": "'a'"},
    "lr_epoch_decay": {"3,1": "3,1 does not rise", "2,2": "2,2 does not rise", "1,": "'' is not a number", "-1": "-1"},
    "lr_decay": {"-1": "-1 is not within 0 to 1", "2": "2 is not within 0 to 1"},
    "weight_avg_exp": {"-1": "-1 is not within 0 to 1", "2": "2 is not within 0 to 1"},
    "weight_avg_n": {"-1": "-1 is not within 0 to 10000", "1.5": "'1.5' is not a whole number"},
    "epochs": {"-1": "-1 is not within 0 to 10000", "all": "'all' is not a number"},
}
SWEEP = [(name, value) for name, values in OUTSIDE.items() for value in values]


def line_of(name: str, value: str) -> Sequence[str]:
    return (*TRAINING, f"{parsing.option(name)}={value}")


@pytest.fixture(scope="module")
def swept(new_suite: Callable[[], Suite]) -> Dict[Sequence[str], Collected]:
    """What comes of every value in OUTSIDE, of which none may leave a file."""
    suite = new_suite()
    found = collect(suite, [line_of(name, value) for name, value in SWEEP])
    assert set(suite.digests()) == {"collecting.py", "lines.json", "collected.json"}
    return found


def test_every_option_of_a_recipe_is_tried() -> None:
    assert set(OUTSIDE) == set(RECIPE)


@pytest.mark.parametrize("name, value", SWEEP, ids=[f"{name}={value}" for name, value in SWEEP])
def test_a_value_out_of_range_is_one_line_that_names_it(
    swept: Dict[Sequence[str], Collected], name: str, value: str
) -> None:
    done = swept[line_of(name, value)]

    assert done.returncode == 4, done.text
    assert "Traceback" not in done.text
    (line,) = [line for line in done.text.splitlines() if line.startswith("ERROR")]
    assert f"{parsing.option(name)}: " in line
    assert OUTSIDE[name][value] in line


@pytest.mark.parametrize("name", [name for name in RECIPE if OPTIONS[name].spellings])
def test_another_spelling_is_refused_by_the_name_that_the_options_have(name: str) -> None:
    """One name in every message, in the help and in the record; spellings are only read."""
    (first, *_), (value, *_) = OPTIONS[name].spellings, OUTSIDE[name]

    assert first != parsing.option(name)
    with pytest.raises(ValueError, match=f"^{parsing.option(name)}: "):
        options.parse([*TRAINING, f"{first}={value}"])


# Arguments that contradict each other, or what there is, and what the one line must say.
REFUSED = {
    "cutmix twice": (
        [*TRAINING, "--cutmix-lambda=0.5", "--cutmix-lambda-high=0.7"],
        ["--cutmix-lambda and --cutmix-lambda-high", "give one"],
    ),
    "cutmix upside down": (
        [*TRAINING, "--cutmix-lambda-low=0.5", "--cutmix-lambda-high=0.3"],
        ["--cutmix-lambda-low 0.5 is above --cutmix-lambda-high 0.3"],
    ),
    "cutmix without a largest": ([*TRAINING, "--cutmix-lambda-low=0.5"], ["0.5 is above --cutmix-lambda-high 0"]),
    "manual without layers": ([*TRAINING, "--recompute=manual"], ["--recompute-layers REGEX", "go together"]),
    "layers without manual": ([*TRAINING, "--recompute-layers=layer2"], ["--recompute manual", "go together"]),
    "layers and auto": ([*TRAINING, "--xla-recompute", "--recompute-layers=layer2"], ["go together"]),
    "two rates": (
        [*TRAINING, "--learning-rate=0.1", "--base-learning-rate=-8"],
        ["--learning-rate and --base-learning-rate-exponent", "give one"],
    ),
    "a rate of nothing": ([*TRAINING, "--learning-rate=0"], ["learning rate 0.0 is not a positive number"]),
    "a drop to nothing": (
        [*TRAINING, "--lr-schedule=stepped", "--lr-epoch-decay=3", "--lr-decay=0"],
        ["drop_factor=0.0 is not a positive number"],
    ),
    "a decay every 0 epochs": (
        [*TRAINING, "--lr-schedule=exponential", "--lr-epoch-decay=0"],
        ["decay_epochs=0.0 is not a positive number"],
    ),
    "epochs without images": ([*TRAINING, "--epochs=2"], ["--epochs", "--data real --data-dir DIR"]),
    "a size alone": (["--model-size=50"], ["--model-size", "resnet, resnext or efficientnet"]),
    "a size of no family": (["--model=mobilenet", "--model-size=2"], ["'mobilenet'", "resnet, resnext, efficientnet"]),
    "a size of two": (
        ["--model=resnet,resnext", "--model-size=50"],
        ["--model: 'resnet,resnext'", "is not one of resnet, resnext, efficientnet"],
    ),
    "a size that is none": (["--model=resnet", "--model-size=51"], ["'resnet51'", "did you mean resnet50?"]),
    "no model": (["--model=resnet5"], ["--model: 'resnet5'", "did you mean resnet50?", *models()]),
    "a layer": (["--model=dense"], ["--model: 'dense'", "is not one of efficientnet_b0"]),
    "a model twice": (["--model=resnext50,resnext50_32x4d"], ["'resnext50_32x4d' is given twice"]),
    "a model and nothing": (["--model=resnet8,"], ["--model", "empty"]),
    "weights and none": ([*NETWORK, "--weights=run.json", "--random-weights"], ["--weights FILE and --random-weights"]),
    "weights nowhere": ([*NETWORK, "--weights=nowhere.pt"], ["--weights", "no such file or folder: nowhere.pt"]),
    "weights that are a folder": ([*NETWORK, "--weights=empty"], ["--weights: empty is a folder; a file is needed"]),
    "weights of no kind": (
        [*NETWORK, "--weights=run.json"],
        ["weights come as .safetensors, .pt, .pth, .npz, not .json"],
    ),
    "weights of no name": ([*NETWORK, "--weights="], ["--weights", "empty"]),
    "a folder of no images": ([*NETWORK, "--data-dir=empty"], ["--data-dir is for --data real", "synthetic"]),
    "images nowhere": ([*NETWORK, "--data=real", "--data-dir=nowhere"], ["--data-dir", "no such file", "nowhere"]),
    "images that are none": ([*NETWORK, "--data=real", "--data-dir=empty"], ["--data-dir", "empty holds no images"]),
    "images of no name": ([*NETWORK, "--data=real", "--data-dir="], ["--data-dir", "empty"]),
    "workers below none": ([*NETWORK, "--data=real", "--data-workers=-1"], ["--data-workers: -1 is not within 0 to"]),
    "errors otherwise": ([*NETWORK, "--data-errors=ignore"], ["--data-errors", "'ignore'", "stop, skip"]),
    "drops of no run": (
        [*TRAINING, "--lr-drops=146"],
        ["--lr-drops is for --lr-schedule exponential; --lr-schedule is constant"],
    ),
    "drops of steps": (
        [*TRAINING, "--lr-schedule=stepped", "--lr-epoch-decay=3", "--lr-drops=3"],
        ["--lr-drops is for --lr-schedule exponential; --lr-schedule is stepped"],
    ),
    "drops at two distances": (
        [*TRAINING, "--lr-schedule=exponential", "--lr-epoch-decay=2.4", "--lr-drops=146"],
        ["--lr-drops and --lr-epoch-decay both say when the rate drops; give one"],
    ),
    "a protocol": ([*NETWORK, "--protocol=popart"], ["--protocol", "'popart'", "did you mean popart_layers?"]),
    "the protocol of old": (
        [*NETWORK, "--protocol=readme"],
        ["'readme'", "is not one of median, tensorflow_layers, popart_layers, tensorflow_cnns, pytorch_cnns"],
    ),
    "two protocols": (
        [*NETWORK, "--protocol=median,pytorch_cnns"],
        ["--protocol: 'median,pytorch_cnns'", "is not one of median"],
    ),
    "calls that are all dropped": (
        [*NETWORK, "--protocol=pytorch_cnns", "--steps=2"],
        ["--protocol pytorch_cnns drops the first 2 calls; --steps is 2"],
    ),
    "half of 32 pixels": ([*TRAINING, "--half-res-training"], ["resnet8", "224 and 380 pixels, not 32"]),
    "groups that do not divide": (
        [*NETWORK, "--norm-type=group", "--norm-num-groups=5"],
        ["resnet8: norm_num_groups=5 must divide", "16 is one of them"],
    ),
    "a split nowhere": ([*NETWORK, "--pipeline-splits=layer9"], ["resnet8 has no block 'layer9'", "layer1.0"]),
    "no preset": (["--config=resnet50-mk3"], ["--config: 'resnet50-mk3'", "did you mean resnet50-mk2?"]),
    "a preset of no name": ([*NETWORK, "--config="], ["--config", "empty"]),
    "models of numpy": ([*NETWORK, "--export-onnx=there"], ["--export-onnx", "onnxruntime and openvino"]),
    "models into a file": (
        [*NETWORK, "--backend=onnxruntime", "--export-onnx=run.json", "--collect-only"],
        ["--export-onnx", "run.json"],
    ),
    "models of no name": (
        [*NETWORK, "--backend=onnxruntime", "--export-onnx=", "--collect-only"],
        ["--export-onnx", "empty"],
    ),
    "a profile of real images": (
        [*NETWORK, "--backend=torch", "--data=real", "--profile=there"],
        ["--profile is of a step without an input pipeline", "not real"],
    ),
    "a profile into a file": (
        [*NETWORK, "--profile=run.json", "--collect-only"],
        ["--profile", "run.json is a file"],
    ),
    "a profile of no name": ([*NETWORK, "--profile=", "--collect-only"], ["--profile", "empty"]),
    "a profile of a comparison": (
        [*NETWORK, "--against=rev=HEAD", "--profile=there"],
        ["--against and --profile contradict each other"],
    ),
    "real rows": (["-k", "dense", "--data=real"], ["--data real is for image networks", "dense is selected"]),
    "smoothing of rows": (
        ["-k", "dense", "--mode=training", "--label-smoothing=0.1", "--recompute=auto"],
        ["--recompute, --label-smoothing: for image networks only", "dense is selected"],
    ),
    "momentum of nothing": ([*NETWORK, "--momentum=0.8"], ["--momentum is about training", "--mode is inference"]),
    "another spelling": ([*NETWORK, "--optimizer=adam"], ["--optimiser is about training; --mode is inference"]),
    "a shorthand": ([*NETWORK, "--xla-recompute", "--mode=eval"], ["--recompute is about training; --mode is eval"]),
    "half in inference": (
        ["--model=resnet50", "--half-res-training", "--collect-only"],
        ["--half-res-training is about training; --mode is inference"],
    ),
    "of no layer": (["-k", "dense", "--eight-bit-io"], ["--eight-bit-io fits none", "(dense)", "resnet50"]),
    "of no network": ([*NETWORK, "--units=8"], ["--units fits none", "(resnet8)", "it is for dense"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_contradiction_is_one_line_that_says_what_is_allowed(refused: Callable[..., str], name: str) -> None:
    args, said = REFUSED[name]

    line = refused(*args)

    assert [each for each in said if each not in line] == [], line


BOTH: List[Sequence[str]] = [
    (*NETWORK, "--mode", "inference,training", "--momentum", "0.8"),
    (*TRAINING, "--cutmix-lambda-low", "0.2", "--cutmix-lambda-high", "0.2"),
    (*TRAINING, "--recompute", "manual", "--recompute-layers", "layer[12]"),
    (*TRAINING, "--epochs", "2", "--steps", "3"),
    # The command line wins over a preset, whose words for the same thing it leaves out.
    ("--config", "resnet50", "--mode", "inference"),
    ("--config", "mk2_resnet50_base", "--learning-rate", "0.1"),
    ("--config", "resnet50", "--base-learning-rate", "-8"),
    ("--config", "resnet50_mk2", "--recompute", "auto"),
    ("--config", "resnet50_mk2", "--recompute-layers", "layer3"),
    ("--config", "efficientnet-g16-gn", "--weights", "weights.npz"),
    ("--config", "efficientnet-b4-g16-gn-16ipu-mk2", "--cutmix-lambda", "0.85"),
    ("--config", "mk2_efficientnet_b4_16ipus_base", "--cutmix-lambda-high", "0.85"),
]


@pytest.fixture(scope="module")
def taken(new_suite: Callable[[], Suite]) -> Dict[Sequence[str], Collected]:
    suite = new_suite()
    suite.add("weights.npz", "")
    return collect(suite, BOTH)


@pytest.mark.parametrize("line", BOTH, ids=" ".join)
def test_what_only_looks_like_a_contradiction_is_taken(
    taken: Dict[Sequence[str], Collected], line: Sequence[str]
) -> None:
    assert taken[line].returncode == 0, taken[line].text
