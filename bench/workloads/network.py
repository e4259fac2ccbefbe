"""Image networks as workloads: a family's file describes several models, and each is a workload."""

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
# What the float64 reference of a training step can afford: a check of this size instead.
CHECKED_SIZE, CHECKED_BATCH = 64, 4
# Weights are measured on images of at most so many pixels on a side.
SAMPLED_SIZE = 128
# Names in the READMEs that are not ours.
SPELLINGS = {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d", "mobilenet": "mobilenet_v2"}
# TensorFlow's programs name a model by family and size, and mean 32x4d by every ResNeXt.
FAMILIES = {"resnet": "resnet{}", "resnext": "resnext{}_32x4d", "efficientnet": "efficientnet_b{}"}
# Pixels on a side in half-resolution training, which ends at the full size (not measured apart).
HALF_RESOLUTION = {224: 160, 380: 252}


@dataclass(frozen=True)
class Model:
    """One model of a family: the contract of a workload (`bench/workloads/`), fulfilled from the family's file.

    A family's file has DIMENSIONS, MODELS (what is fixed in each; image_size, classes, eps, momentum and
    norm_num_groups among them where they are not the family's), EPS, MOMENTUM, GROUPS, and
    build(net, x, style, *, classes, ...), which adds the network behind a normalised image.
    """

    ITEM: ClassVar[str] = "image"
    LEARNING_RATE: ClassVar[float] = 1e-3
    name: str
    family: ModuleType

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def _fixed(self) -> Mapping[str, Any]:
        return self.family.MODELS[self.name]  # type: ignore[no-any-return]

    @property
    def DIMENSIONS(self) -> Mapping[str, Dimension]:
        """The family's, with this model's own values as what goes without saying."""
        own = {"classes": self._fixed.get("classes", 1000)}
        own["norm_num_groups"] = self._fixed.get("norm_num_groups", self.family.GROUPS)
        return {
            key: dimension.with_default(own[key]) if key in own else dimension
            for key, dimension in self.family.DIMENSIONS.items()
        }

    @property
    def SIZES(self) -> Tuple[Mapping[str, Value], ...]:
        own = self._fixed.get("image_size", 224)
        # The older of the PyTorch programs ran every EfficientNet at 224 pixels.
        return tuple({"image_size": size} for size in dict.fromkeys((own, min(own, 224))))

    @property
    def TINY(self) -> Mapping[str, Value]:
        return {"image_size": 33, "classes": 5}

    def canonical(self, size: Mapping[str, Value]) -> Dict[str, Value]:
        """`size` with what one dimension says about another, so that one network has one name."""
        found = dict(size)
        if found["norm_type"] != "group":
            found["norm_num_groups"] = sizes.default_of(self.DIMENSIONS["norm_num_groups"])
            found["enable_fast_groupnorm"] = "off"
        if found["norm_type"] == "none" or self._eps(str(found["norm_eps"])) == self._eps("family"):
            found["norm_eps"] = "family"
        if found["eight_bit_io"] == "on":
            # Bytes have to be made numbers where they arrive.
            found["normalization_location"] = "host"
        return found

    def checked(self, size: Mapping[str, Value], batch_size: int, mode: str) -> Tuple[Dict[str, Value], int]:
        """The size that the float64 reference of a step with a loss can afford: every row counts there."""
        if mode == "inference":
            return dict(size), batch_size
        return {**size, "image_size": min(int(size["image_size"]), CHECKED_SIZE)}, min(batch_size, CHECKED_BATCH)

    def sampled(self, size: Mapping[str, Value]) -> Dict[str, Value]:
        """A size whose forward pass takes the float64 reference about a second, with the same weights."""
        return {**size, "image_size": min(int(size["image_size"]), SAMPLED_SIZE)}

    def build(self, net: Graph, **size: Any) -> Tensor:
        """Add image, normalisation and network to `net`; return the logits (batch, classes)."""
        fixed = {k: v for k, v in self._fixed.items() if k not in ("image_size", "norm_num_groups", "eps", "momentum")}
        own = {key: size[key] for key in size if key in ("group_dim", "expand_ratio")}
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
        return self.family.build(net, x, style, **{**fixed, **own, "classes": size["classes"]})  # type: ignore[no-any-return]

    def loss(self, net: Graph, output: Tensor, **size: Any) -> Tensor:
        """Softmax cross entropy against the labels, smoothed and mixed as the recipe says."""
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
    """A size at half resolution. Raises ValueError where that is not defined."""
    pixels = int(size["image_size"])
    if pixels not in HALF_RESOLUTION:
        known = " and ".join(map(str, HALF_RESOLUTION))
        raise ValueError(f"{name}: --half-res-training is defined for images of {known} pixels, not {pixels}")
    return {**size, "image_size": HALF_RESOLUTION[pixels]}
