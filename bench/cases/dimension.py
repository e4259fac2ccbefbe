"""The dimensions of a workload, which are options of the command line, and the names of sizes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Dict, Mapping, Optional, Tuple, Union

from bench.registry import unknown

Value = Union[int, str]


@dataclass(frozen=True)
class Dimension:
    """One dimension: `abbreviation` stands for it in names, `help` explains it in --help.

    choices   the allowed values; empty: integers from `minimum` to `maximum`. The name of a flag, whose choices are off
              and on, is its abbreviation alone
    default   the value that names leave out: the first choice, or a number. 0 means that the workload sets it. None:
              there is no default
    aliases   other spellings of the choices
    """

    abbreviation: str
    help: str
    choices: Tuple[str, ...] = ()
    minimum: int = 1
    maximum: int = 10**6
    default: Optional[Value] = None
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.choices:
            object.__setattr__(self, "default", self.choices[0])

    @property
    def flag(self) -> bool:
        return self.choices == ("off", "on")

    def with_default(self, default: int) -> Dimension:
        """The same dimension with another default."""
        return replace(self, default=default)

    def name_part(self, value: Value) -> str:
        """The part of a size's name for a value."""
        if value == self.default:
            return ""
        # A hyphen separates the parts of an id.
        return self.abbreviation if self.flag else f"{self.abbreviation}{value}".replace("-", "m")

    def parse(self, text: str) -> Value:
        """Return the value of `text`. Raises ValueError with the allowed values."""
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
STRIDE = Dimension("s", "stride of a convolution in pixels", maximum=1024)
FILTER_IN = Dimension("c", "input channels", maximum=65536)
FILTER_OUT = Dimension("f", "output channels", maximum=65536)
FILTERS_PER_GROUP = Dimension("g", "filters in a group of a grouped convolution", maximum=65536)
BIAS = Dimension("bias", "a bias in the layer", choices=("on", "off"))
RNN_IMPL = Dimension(
    "", "the framework's recurrent layer, or its cell in an explicit loop over time", choices=("fused", "cell")
)


def name(dimensions: Mapping[str, Dimension], values: Mapping[str, Value]) -> str:
    """The name of a size: `h128_t5`, `h32_t1_biasoff`.

    Equal sizes have equal names, however they were selected.
    """
    parts = (dimension.name_part(values[key]) for key, dimension in dimensions.items())
    return "_".join(part for part in parts if part)


def with_defaults(dimensions: Mapping[str, Dimension], values: Mapping[str, Value]) -> Dict[str, Value]:
    """`values` in the order of `dimensions`, with defaults for missing ones."""
    return {key: values[key] if key in values else default_of(dimension) for key, dimension in dimensions.items()}


def default_of(dimension: Dimension) -> Value:
    """The default of a dimension that has one."""
    assert dimension.default is not None, f"no value for: {dimension.help}"
    return dimension.default
