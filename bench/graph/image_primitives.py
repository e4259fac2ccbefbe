"""What image networks are made of, as methods of a Graph: convolution, norms, pools, activations.

Images are (batch, channels, height, width). Weights carry the names that torchvision's models use
(`layer1.0.conv1.weight`), so that files of weights fit without a table of names.
"""

from __future__ import annotations

import contextlib
import math
from typing import Iterator, List, Tuple, Union

from bench.graph.recording import Recording, Tensor

Padding = Union[int, str]


class Convolutional(Recording):
    """The part of a Graph that is about images. `training`: norms use the batch's own statistics,
    and dropout drops."""

    @contextlib.contextmanager
    def in_block(self, name: str) -> Iterator[None]:
        """Name what is recorded within: a block can be recomputed, and a pipeline can be cut before it."""
        before, self.block = self.block, name
        try:
            yield
        finally:
            self.block = before

    def image(self, channels: int, size: int, values: str = "uniform") -> Tensor:
        """A batch of square images. `values`: uniform within +-1, pixels (0 to 255, floats) or uint8."""
        return self._source("input", (channels, size, size), values="image" if values == "uniform" else values)

    def normalise(self, x: Tensor, mean: Tuple[float, ...], std: Tuple[float, ...]) -> Tensor:
        """(x / 255 - mean) / std by channel, in the precision of the arithmetic, from any type."""
        attrs = {
            "scale": [1 / (255 * s) for s in std],
            "shift": [-m / s for m, s in zip(mean, std)],
        }
        return self._add("normalise", [x], [x.shape], attrs, flops=0)

    def pad_channels(self, x: Tensor, channels: int) -> Tensor:
        """Channels of zeros behind the others, up to `channels`."""
        return self._add("pad_channels", [x], [(x.shape[0], channels, *x.shape[2:])], flops=0)

    def conv(
        self,
        x: Tensor,
        filters: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: Padding = 0,
        groups: int = 1,
        bias: bool = True,
        name: str = "",
    ) -> Tensor:
        """A 2-D convolution of a square kernel. `padding`: pixels on every side, or "same", which is
        TensorFlow's rule: ceil(size / stride) pixels come out, an odd pixel goes to the end.
        Named, it belongs to a deep network, whose weights are drawn to keep the signal's size."""
        _, channels, height, width = x.shape
        if channels % groups or filters % groups:
            raise ValueError(f"groups={groups} must divide the input channels ({channels}) and the filters ({filters})")
        pads, outs = _window((height, width), kernel_size, stride, padding)
        fan_in = channels // groups * kernel_size**2
        shape = (filters, channels // groups, kernel_size, kernel_size)
        weights = [self._weight("weight", shape, fan_in, "deep" if name else "uniform", name)]
        if bias:
            weights.append(self._weight("bias", (filters,), fan_in, label=name))
        attrs = {"stride": stride, "pads": pads, "groups": groups, "same": padding == "same"}
        out = (self.batch_size, filters, outs[0], outs[1])
        return self._add("conv", [x], [out], attrs, weights, flops=2 * math.prod(out) * fan_in)

    def batch_norm(self, x: Tensor, *, eps: float, momentum: float, last: bool = False, name: str = "") -> Tensor:
        """Normalise by channel: in training with the batch's mean and (biased) variance, moving the
        running ones by `momentum` towards them; otherwise with the running ones. `last`: the end of a
        residual branch, whose scale is drawn small (training starts it at zero)."""
        count = (x.shape[1],)
        weights = [
            self._weight("weight", count, 1, "last_scale" if last else "scale", name),
            self._weight("bias", count, 1, "shift", name),
            self._weight("running_mean", count, 1, "mean", name),
            self._weight("running_var", count, 1, "variance", name),
        ]
        attrs = {"eps": eps, "momentum": momentum, "training": self.training}
        return self._add("batch_norm", [x], [x.shape], attrs, weights, flops=0)

    def group_norm(
        self, x: Tensor, groups: int, *, eps: float, strided: bool = False, last: bool = False, name: str = ""
    ) -> Tensor:
        """Normalise over pixels and the channels of a group, row by row. `strided`: channel c belongs
        to group c % groups (the IPU's fast variant); otherwise a group's channels are neighbours."""
        channels = x.shape[1]
        if channels % groups:
            raise ValueError(f"norm_num_groups={groups} must divide every norm's channels; {channels} is one of them")
        weights = [
            self._weight("weight", (channels,), 1, "last_scale" if last else "scale", name),
            self._weight("bias", (channels,), 1, "shift", name),
        ]
        return self._add(
            "group_norm", [x], [x.shape], {"eps": eps, "groups": groups, "strided": strided}, weights, flops=0
        )

    def activation(self, x: Tensor, kind: str) -> Tensor:
        """relu, relu6, sigmoid, silu (x sigmoid(x)), hardsigmoid (relu6(x + 3) / 6), hardswish."""
        return self._add(kind, [x], [x.shape], flops=0)

    def max_pool(self, x: Tensor, kernel_size: int, *, stride: int, padding: Padding) -> Tensor:
        """The largest pixel of a window; padding as for `conv`, and it never wins."""
        pads, outs = _window(x.shape[2:], kernel_size, stride, padding)
        attrs = {"kernel": kernel_size, "stride": stride, "pads": pads, "same": padding == "same"}
        return self._add("max_pool", [x], [(x.shape[0], x.shape[1], outs[0], outs[1])], attrs, flops=0)

    def global_mean(self, x: Tensor) -> Tensor:
        """The mean over all pixels: (batch, channels)."""
        return self._add("global_mean", [x], [x.shape[:2]], flops=0)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over all pixels, kept as an image of one pixel: (batch, channels, 1, 1)."""
        return self._add("pooled", [x], [(*x.shape[:2], 1, 1)], flops=0)

    def gate(self, x: Tensor, gate: Tensor) -> Tensor:
        """x times a factor for each row and channel (batch, channels, 1, 1), or for each row
        (batch, 1, 1, 1)."""
        return self._add("gate", [x, gate], [x.shape], flops=0)

    def dropout(self, x: Tensor, rate: float, rows: bool = False) -> Tensor:
        """Zero a share `rate` of the elements, or of whole rows (drop connect), and scale up the rest.

        Nothing outside training. The draws are an input where a result is to be checked.
        """
        if not self.training or not rate:
            return x
        shape = (1,) * (len(x.shape) - 1) if rows else x.shape[1:]
        if self.random_as_inputs:
            kept = self._source("input", shape, values="kept", rate=rate)
            return self.gate(x, kept) if rows else self._add("mul", [x, kept], [x.shape], flops=0)
        return self._add("dropout", [x], [x.shape], {"rate": rate, "rows": rows}, flops=0)

    def blended(self, x: Tensor) -> Tensor:
        """The images blended as the recipe says: share x + (1 - share) y, where y is the batch rolled by
        some rows. The shares are inputs: one a row (batch, 1, 1, 1), or one a pixel (batch, 1, height, width)."""
        for kind in self.recipe.blends:
            pixels = x.shape[2:] if kind == "cutmix" else (1, 1)
            share = self._source("input", (1, *pixels), values="unit")
            # Cutmix takes the second neighbour, so that mixup's pair is not cut into itself.
            shift = 2 if kind == "cutmix" and self.batch_size > 2 else 1
            x = self._add("blend", [x, share], [x.shape], {"shift": shift}, flops=0)
        return x

    # ---- the loss of image networks ---------------------------------------------------------------

    def cross_entropy(
        self, x: Tensor, labels: Tensor, on: float = 1.0, off: float = 0.0, shares: Union[Tensor, None] = None
    ) -> Tensor:
        """Softmax cross entropy, averaged over the rows, against integer labels (batch,): `on` for the
        labelled class and `off` for the others, which is what label smoothing comes to.

        shares   (batch, labels): the weights of the row's own label and of those that belong to the
                 images blended in, in the order of `rolls`
        """
        shifts = [node.attrs["shift"] for node in self.nodes if node.op == "blend"] if shares else []
        every: List[Tensor] = [x, labels, *([shares] if shares else [])]
        attrs = {"on": on, "off": off, "rolls": rolls(shifts)}
        return self._add("cross_entropy", every, [()], attrs, flops=0)


def rolls(shifts: List[int]) -> List[int]:
    """By how many rows each label's image was rolled, when the batch was blended once for each shift:
    none [0], one [0, s], two [0, s, t, s + t]."""
    found = [0]
    for shift in shifts:
        found += [roll + shift for roll in found]
    return found


def _window(
    sizes: Tuple[int, ...], kernel_size: int, stride: int, padding: Padding
) -> Tuple[List[Tuple[int, int]], List[int]]:
    """The pixels of padding, before and behind, and the pixels that come out, by axis."""
    pads = [_pads(size, kernel_size, stride, padding) for size in sizes]
    outs = [(size + sum(pad) - kernel_size) // stride + 1 for size, pad in zip(sizes, pads)]
    if min(outs) < 1:
        raise ValueError(
            f"kernel_size={kernel_size} with padding={padding} does not fit an image of {sizes[0]}x{sizes[1]}"
        )
    return pads, outs


def _pads(size: int, kernel_size: int, stride: int, padding: Padding) -> Tuple[int, int]:
    if padding != "same":
        return int(padding), int(padding)
    total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2
