"""The dimensions of a workload: what a command line may set, and how a size gets its name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Dict, Mapping, Optional, Tuple, Union

from bench.registry import unknown

Value = Union[int, str]


@dataclass(frozen=True)
class Dimension:
    """One dimension: `letter` stands for it in names, `text` explains it in --help.

    A dimension with `choices` takes one of them, and its first choice is left out of names; `aliases`
    are other spellings. Off and on are a flag, named by its letter alone. A number may have a `default`,
    which is left out of names; 0 stands for the workload's own.
    """

    letter: str
    text: str
    choices: Tuple[str, ...] = ()
    minimum: int = 1
    maximum: int = 10**6
    default: Optional[int] = None
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def flag(self) -> bool:
        return self.choices == ("off", "on")

    @property
    def start(self) -> Optional[Value]:
        """The value that goes without saying, if there is one."""
        return self.choices[0] if self.choices else self.default

    def optional(self, default: int) -> Dimension:
        """The same, with a value that goes without saying."""
        return replace(self, default=default)

    def part(self, value: Value) -> str:
        """What a value adds to a name."""
        if value == self.start:
            return ""
        # A hyphen parts an id.
        return self.letter if self.flag else f"{self.letter}{value}".replace("-", "m")

    def parse(self, text: str) -> Value:
        """Return the value that `text` means. Raises ValueError saying what is allowed."""
        if self.choices:
            text = self.aliases.get(text, text)
            if text not in self.choices:
                raise ValueError(unknown(text, self.choices))
            return text
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} to {self.maximum}")
        return value


HIDDEN_SIZE = Dimension("h", "units in the state of a recurrent layer", maximum=65536)
TIMESTEPS = Dimension("t", "time steps of a sequence")
INPUT_SIZE = Dimension("i", "features of a time step, or pixels on a side of an image", maximum=65536)
KERNEL_SIZE = Dimension("k", "pixels on a side of a convolution's kernel", maximum=1024)
STRIDE = Dimension("s", "pixels that a convolution moves", maximum=1024)
FILTER_IN = Dimension("c", "channels that come in", maximum=65536)
FILTER_OUT = Dimension("f", "channels that go out", maximum=65536)
FILTERS_PER_GROUP = Dimension("g", "filters in a group of a grouped convolution", maximum=65536)
BIAS = Dimension("bias", "a bias in the layer", choices=("on", "off"))
RNN_IMPL = Dimension(
    "", "the framework's recurrent layer, or its cell in an explicit loop over time", choices=("fused", "cell")
)


def name(dimensions: Mapping[str, Dimension], values: Mapping[str, Value]) -> str:
    """The name of a size: `h128_t5`, `h32_t1_biasoff`.

    Derived from the values, so that one size has one name however it was asked for.
    """
    parts = (dimension.part(values[key]) for key, dimension in dimensions.items())
    return "_".join(part for part in parts if part)


def completed(dimensions: Mapping[str, Dimension], values: Mapping[str, Value]) -> Dict[str, Value]:
    """`values` in the order of `dimensions`, with what goes without saying where one is left out."""
    found: Dict[str, Value] = {}
    for key, dimension in dimensions.items():
        found[key] = values[key] if key in values else started(dimension)
    return found


def started(dimension: Dimension) -> Value:
    """The value that goes without saying; a dimension that has none must be given."""
    assert dimension.start is not None, f"no value for: {dimension.text}"
    return dimension.start
