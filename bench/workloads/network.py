"""Image networks: each model that a family's file describes is a workload."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Dict, Mapping, Tuple

from bench import registry
from bench.cases import dimension as sizes
from bench.cases.dimension import Dimension, Value
from bench.graph import Graph, Tensor
from bench.workloads.cnns._parts import Style

PACKAGE = "bench.workloads.cnns"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The largest image, in pixels on a side, and the largest batch on which a step with a loss is checked: the float64
# reference is slow.
CHECKED_SIZE, CHECKED_BATCH = 64, 4
# The largest image, in pixels on a side, on which the weights are scaled.
SAMPLED_SIZE = 128
# Names in the original READMEs that differ from ours.
SPELLINGS = {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d", "mobilenet": "mobilenet_v2"}
# TensorFlow's programs name a model by family and size; all their ResNeXts are 32x4d.
FAMILIES = {"resnet": "resnet{}", "resnext": "resnext{}_32x4d", "efficientnet": "efficientnet_b{}"}
# Pixels on a side in half-resolution training, by the full size. The last epochs, of full size, are not measured.
HALF_RESOLUTION = {224: 160, 380: 252}


@dataclass(frozen=True)
class Model:
    """One model of a family: the contract of a workload (`bench/workloads/`), from the family's file.

    A family's file has DIMENSIONS, EPS, MOMENTUM, GROUPS, and MODELS: the fixed values of each model, which may
    override image_size, classes, eps, momentum and norm_num_groups of the family. Its build(net, x, style, *, classes,
    ...) adds the network to `net`, with the normalised image `x` as input, and returns the logits.
    """

    ITEM: ClassVar[str] = "image"
    LEARNING_RATE: ClassVar[float] = 1e-3
    name: str
    family: ModuleType

    @property
    def _fixed(self) -> Mapping[str, Any]:
        return self.family.MODELS[self.name]  # type: ignore[no-any-return]

    @property
    def DIMENSIONS(self) -> Mapping[str, Dimension]:
        """The dimensions of the family, with the defaults of this model."""
        defaults = {"classes": self._fixed.get("classes", 1000)}
        defaults["norm_num_groups"] = self._fixed.get("norm_num_groups", self.family.GROUPS)
        return {
            key: dimension.with_default(defaults[key]) if key in defaults else dimension
            for key, dimension in self.family.DIMENSIONS.items()
        }

    @property
    def SIZES(self) -> Tuple[Mapping[str, Value], ...]:
        default = self._fixed.get("image_size", 224)
        # The older of the PyTorch programs ran every EfficientNet at 224 pixels.
        return tuple({"image_size": size} for size in dict.fromkeys((default, min(default, 224))))

    @property
    def TINY(self) -> Mapping[str, Value]:
        return {"image_size": 33, "classes": 5}

    def canonical(self, size: Mapping[str, Value]) -> Dict[str, Value]:
        """The canonical form of `size`: a dimension that others make meaningless has its default."""
        values = dict(size)
        if values["norm_type"] != "group":
            values["norm_num_groups"] = sizes.default_of(self.DIMENSIONS["norm_num_groups"])
            values["enable_fast_groupnorm"] = "off"
        if values["norm_type"] == "none" or self._eps(str(values["norm_eps"])) == self._eps("family"):
            values["norm_eps"] = "family"
        if values["eight_bit_io"] == "on":
            # Bytes are always normalised on the device.
            values["normalization_location"] = "host"
        return values

    def checked(self, size: Mapping[str, Value], batch_size: int, mode: str) -> Tuple[Dict[str, Value], int]:
        """A size and a batch size at which the float64 reference of a step with a loss is fast enough."""
        if mode == "inference":
            return dict(size), batch_size
        return {**size, "image_size": min(int(size["image_size"]), CHECKED_SIZE)}, min(batch_size, CHECKED_BATCH)

    def sampled(self, size: Mapping[str, Value]) -> Dict[str, Value]:
        """A size with the same weights, whose forward pass takes the float64 reference about a second."""
        return {**size, "image_size": min(int(size["image_size"]), SAMPLED_SIZE)}

    def build(self, net: Graph, **size: Any) -> Tensor:
        """Add image, normalisation and network to `net` and return the logits, (batch, classes)."""
        fixed = {k: v for k, v in self._fixed.items() if k not in ("image_size", "norm_num_groups", "eps", "momentum")}
        widths = {key: size[key] for key in size if key in ("group_dim", "expand_ratio")}
        style = Style(
            net,
            size["norm_type"],
            size["norm_num_groups"],
            size["enable_fast_groupnorm"] == "on",
            self._eps(size["norm_eps"]),
            self._fixed.get("momentum", self.family.MOMENTUM),
            size["padding_rule"] == "same",
        )
        x = _image(net, size)
        logits: Tensor = self.family.build(net, x, style, **{**fixed, **widths, "classes": size["classes"]})
        return logits

    def loss(self, net: Graph, output: Tensor, **size: Any) -> Tensor:
        """Softmax cross entropy with the labels, which the recipe may smooth and mix."""
        labels = net.labels(values="classes", count=size["classes"])
        on, off = net.recipe.smoothed(size["classes"])
        shares = None
        if net.training and net.recipe.blends:
            shares = net.labels(2 ** len(net.recipe.blends), values="distribution")
        return net.cross_entropy(output, labels, on, off, shares)

    def _eps(self, text: str) -> float:
        return float(self._fixed.get("eps", self.family.EPS) if text == "family" else text)


def _image(net: Graph, size: Mapping[str, Any]) -> Tensor:
    location = "device" if size["eight_bit_io"] == "on" else size["normalization_location"]
    values = "uint8" if size["eight_bit_io"] == "on" else {"host": "uniform", "device": "pixels", "none": "uniform"}
    x = net.image(3, size["image_size"], values if isinstance(values, str) else values[location])
    if location == "device":
        x = net.normalise(x, MEAN, STD)
    if net.training:
        x = net.blended(x)
    return net.pad_channels(x, 4) if size["input_image_padding"] == "on" else x


@functools.lru_cache(maxsize=None)
def _families() -> Dict[str, ModuleType]:
    return {name: registry.load(PACKAGE, name) for name in registry.names(PACKAGE)}


@functools.lru_cache(maxsize=None)
def models() -> Dict[str, Model]:
    """Every model by name, family by family."""
    return {name: Model(name, module) for module in _families().values() for name in module.MODELS}


def halved(name: str, size: Mapping[str, Value]) -> Dict[str, Value]:
    """A size at half resolution. Raises ValueError if none is defined for it."""
    pixels = int(size["image_size"])
    if pixels not in HALF_RESOLUTION:
        known = " and ".join(map(str, HALF_RESOLUTION))
        raise ValueError(f"{name}: --half-res-training is defined for images of {known} pixels, not {pixels}")
    return {**size, "image_size": HALF_RESOLUTION[pixels]}
