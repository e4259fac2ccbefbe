"""Image networks as others have built them, on our weights: `python cnn_oracles.py FRAMEWORK FILE [thorough]`.

Networks that are not ours, and what ours make of the same images: the answer to each job is the logits of both, and
in training the loss and the running statistics as well. A process holds one framework.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pickle
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench import backends, workloads
from bench.cases.case import Case, Settings
from bench.graph import draws
from bench.graph.reference import evaluate

BATCH = 2
GROUPED = {"norm_type": "group"}
FAST = {**GROUPED, "enable_fast_groupnorm": "on"}
WIDE = {"group_dim": 16, "expand_ratio": 4}
# By torchvision: every model that we share with it; one of each family at its own size.
FULL = ("resnet50", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0")
SMALLER = {
    **{f"resnet{depth}": 64 for depth in (18, 34, 101, 152)},
    **{"resnext101_32x8d": 64, "mobilenet_v3_small": 96},
    **{f"efficientnet_b{number}": 64 for number in range(1, 8)},
}
MODELS = (*FULL, *SMALLER)
TRAINED = ("resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0")
# name: model, mode, what differs from the model's first size
TORCHVISION = {
    **{model: (model, "inference", {}) for model in FULL},
    **{model: (model, "inference", {"image_size": pixels}) for model, pixels in SMALLER.items()},
    **{f"{model} trained": (model, "training", {"image_size": 96}) for model in TRAINED},
    "resnet18 in groups": ("resnet18", "inference", {"image_size": 65, **GROUPED}),
    "resnet18 in strided groups": ("resnet18", "inference", {"image_size": 65, **FAST}),
    "efficientnet_b0 in strided groups": ("efficientnet_b0", "inference", {"image_size": 65, **FAST}),
    "efficientnet_b0 of wide groups": ("efficientnet_b0", "inference", {"image_size": 65, **WIDE}),
}
SAME = {"padding_rule": "same"}
# Keras's own, which pad as TensorFlow does; even and odd images.
KERAS = {
    "mobilenet_v2": ("mobilenet_v2", "inference", {"image_size": 96, "norm_eps": "1e-3", **SAME}),
    "mobilenet_v2 odd": ("mobilenet_v2", "inference", {"image_size": 75, "norm_eps": "1e-3", **SAME}),
    "mobilenet_v3_small": ("mobilenet_v3_small", "inference", {"image_size": 96, **SAME}),
    "mobilenet_v3_large": ("mobilenet_v3_large", "inference", {"image_size": 81, **SAME}),
    "efficientnet_b0": ("efficientnet_b0", "inference", {"image_size": 96, **SAME}),
    "efficientnet_b1": ("efficientnet_b1", "inference", {"image_size": 75, **SAME}),
    "efficientnet_b2": ("efficientnet_b2", "inference", {"image_size": 64, **SAME}),
}
# Run by default; --thorough runs every model, and one of each family at its own size.
QUICK = (
    *(f"{model} trained" for model in TRAINED),
    *("resnet18", "mobilenet_v3_small", "efficientnet_b1"),
    *("resnet18 in groups", "resnet18 in strided groups", "efficientnet_b0 of wide groups"),
    # By Keras.
    *("mobilenet_v2 odd", "efficientnet_b0"),
)


def sized(job):
    model, _, changed = job
    module = workloads.load(model)
    first = next(iter(workloads.named_sizes(module).values()))
    return module.canonical({key: {**first, **changed}[key] for key in module.dimensions})


def given(job):
    """The graph, its weights and its inputs; nothing is dropped."""
    model, mode, _ = job
    graph = workloads.record(workloads.load(model), sized(job), BATCH, mode, random_as_inputs=True)
    inputs = draws.inputs(graph, "float32")
    for name, node in graph.inputs.items():
        if node.attrs["values"] == "kept":
            inputs[name] = np.ones_like(inputs[name])
    return graph, draws.weights(graph, "float32"), inputs


def by_our_torch(job, graph, weights, inputs):
    """What our lowering gives, and leaves behind of running statistics."""
    model, mode, _ = job
    case = Case(model, "small", sized(job), mode, BATCH, "fp32", 1, "torch", "cpu")
    program = backends.load("torch").compile(graph, weights, [inputs], case, Settings(tuning="default"))
    if mode == "training":
        # To compile was to run once, and to move the statistics.
        program.load(weights)
        program.set_learning_rate(0.0)
        program.run()
        moved = program.weights()
        return {**program.outputs(), **{w.name: moved[w.name] for w in graph.weights if not w.trained}}
    return program.outputs()


def with_torchvision(thorough):
    import torch

    for name in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"):
        # Every number is loaded, theirs and ours: drawing them first would take half of the time.
        setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    answers = {}
    for name, job in TORCHVISION.items():
        made = torchvision_model(job[0], job[2])
        answers[name] = {"names": state(made), "drops": drops(made)}
        if name not in QUICK and not thorough:
            continue
        graph, weights, inputs = given(job)
        answers[name]["ours"] = by_our_torch(job, graph, weights, inputs)
        answers[name]["theirs"] = by_torchvision(made, job[1], weights, inputs)
    return answers


def by_torchvision(made, mode, weights, inputs):
    import torch

    held = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    counts = {name: torch.tensor(0) for name in made.state_dict() if name.endswith("num_batches_tracked")}
    made.load_state_dict({**held, **counts}, assign=True)
    for part in made.modules():
        if is_drop(part):
            part.p = 0.0
    images, *others = (torch.from_numpy(array) for array in inputs.values())
    with torch.no_grad():
        output = made.train(mode == "training")(images)
    found = {"output": output.double().numpy()}
    if mode == "training":
        found["loss"] = torch.nn.functional.cross_entropy(output, others[-1]).double().numpy()
        found.update({n: t.double().numpy() for n, t in made.state_dict().items() if "running" in n})
    return found


def torchvision_model(model, changed=None):
    """torchvision's own, without numbers; what ours differ in is changed here, and nothing else."""
    import torch

    models, changed = torchvision_models(), changed or {}
    groups = {"resnet18": 32, "efficientnet_b0": 4}.get(model, 0)
    options = {}
    if "norm_type" in changed:
        eps = 1e-3 if model == "efficientnet_b0" else 1e-5
        kind = strided_norm() if "enable_fast_groupnorm" in changed else torch.nn.GroupNorm
        options["norm_layer"] = functools.partial(kind, groups, eps=eps)
    with torch.device("meta"):
        if model.startswith("mobilenet_v3"):
            # 1280 hidden units in both, without a bias.
            settings, _ = models.mobilenetv3._mobilenet_v3_conf(model)
            made = models.MobileNetV3(settings, 1280)
            made.classifier[0] = torch.nn.Linear(made.classifier[0].in_features, 1280, bias=False)
        elif "group_dim" in changed:
            made = of_wide_groups(models)
        else:
            made = getattr(models, model)(**options)
    if model.startswith("efficientnet"):
        for part in made.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eps, part.momentum = 1e-3, 0.01
    return made


def of_wide_groups(models):
    """EfficientNet B0 with four times the width inside, and 16 channels in a group of what was depthwise."""
    settings, last = models.efficientnet._efficientnet_conf("efficientnet_b0", width_mult=1.0, depth_mult=1.0)
    for row in settings:
        row.expand_ratio = min(row.expand_ratio, 4.0)
    made = models.EfficientNet(settings, 0.2, last_channel=last)
    for part in made.modules():
        if getattr(part, "groups", 1) > 1:
            part.groups = part.in_channels // 16
            part.weight.data = part.weight.new_empty((part.out_channels, 16, *part.kernel_size))
    return made


def strided_norm():
    import torch

    class Strided(torch.nn.GroupNorm):
        """Channels put in the order of their groups, normalised as neighbours, and put back."""

        def forward(self, x):
            step = self.num_groups
            order = [channel for group in range(step) for channel in range(group, self.num_channels, step)]
            back = np.argsort(order).tolist()
            normed = torch.nn.functional.group_norm(x[:, order], step, eps=self.eps)[:, back]
            return normed * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)

    return Strided


def state(made):
    """Names and shapes of all that is stored, but the counts of batches."""
    return {n: tuple(t.shape) for n, t in made.state_dict().items() if not n.endswith("num_batches_tracked")}


def drops(made):
    """The rates of drop connect and dropout, in order, where they are not zero; a block that does not add what came
    in to what it makes has its drop connect too, and does not call it."""
    idle = [
        part.stochastic_depth
        for part in made.modules()
        if hasattr(part, "stochastic_depth") and not part.use_res_connect
    ]
    return [part.p for part in made.modules() if is_drop(part) and part.p and part not in idle]


def is_drop(part):
    return isinstance(getattr(part, "p", None), float)


@functools.lru_cache(maxsize=None)
def torchvision_models():
    """torchvision's models. Its operators are built for CUDA: beside a CPU build of torch they do not load, and their
    import fails on two of them, which no model here calls. There they are declared."""
    import torch

    folder = Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
    try:
        torch.ops.load_library(str(folder / "_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_models.library = library  # what it declares goes when it does
    import torchvision.models

    return torchvision.models


def with_keras(thorough):
    answers = {}
    for name, job in KERAS.items():
        if name not in QUICK and not thorough:
            continue
        graph, weights, inputs = given(job)
        ours, _ = evaluate(graph, weights, inputs, np.float64)
        answers[name] = {
            "ours": {"output": ours},
            "theirs": {"output": by_keras(job, graph, weights, inputs["input0"])},
        }
    return answers


def by_keras(job, graph, weights, images):
    model, _, changed = job
    pixels = changed["image_size"]
    made = keras_model(model, (pixels, pixels, 3))
    nodes = iter([node for node in graph.nodes if node.weights])
    for layer in made.layers:
        if layer.weights and type(layer).__name__ != "Normalization":
            layer.set_weights(turned(layer, [weights[weight.name] for weight in next(nodes).weights]))
    assert next(nodes, None) is None
    images = images.transpose(0, 2, 3, 1)
    if model.startswith("efficientnet"):
        images = images * 255  # it divides, and its norm of images was never adapted: mean 0, variance 1
    return np.asarray(made(images, training=False), np.float64)


def turned(layer, arrays):
    """A node's arrays in the layouts of a Keras layer; a bias that ours does not have is zero."""
    kind = type(layer).__name__
    if kind == "DepthwiseConv2D":
        arrays = [arrays[0].transpose(2, 3, 0, 1)]
    elif kind == "Conv2D":
        kernel = arrays[0].reshape(*arrays[0].shape, 1, 1) if arrays[0].ndim == 2 else arrays[0]
        arrays = [kernel.transpose(2, 3, 1, 0), *arrays[1:]]
    elif kind == "Dense":
        arrays = [arrays[0].T, *arrays[1:]]
    return arrays if len(arrays) == len(layer.weights) else [*arrays, np.zeros(layer.weights[1].shape)]


def keras_model(model, shape):
    from keras import applications
    from keras.src.applications import mobilenet_v3

    options = {"weights": None, "input_shape": shape, "classifier_activation": None}
    if model == "mobilenet_v2":
        return applications.MobileNetV2(**options)
    if model.startswith("efficientnet"):
        return getattr(applications, f"EfficientNetB{model[-1]}")(**options)
    build = mobilenet_v3.MobileNetV3
    with contextlib.ExitStack() as undo:
        # The small one has 1024 hidden units there, and no argument that says so.
        mobilenet_v3.MobileNetV3 = lambda stack, hidden, *rest, **named: build(stack, 1280, *rest, **named)
        undo.callback(setattr, mobilenet_v3, "MobileNetV3", build)
        name = {"mobilenet_v3_small": "MobileNetV3Small", "mobilenet_v3_large": "MobileNetV3Large"}[model]
        return getattr(mobilenet_v3, name)(include_preprocessing=False, **options)


FRAMEWORKS = {"torchvision": with_torchvision, "keras": with_keras}

if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(pickle.dumps(FRAMEWORKS[sys.argv[1]](sys.argv[3:] == ["thorough"])))
