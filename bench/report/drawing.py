"""A small writer of SVG: axes with round ticks, lines, whiskers, bars, and marks that each have a name.

Lengths are in pixels of the picture's own width; the page scales it. Colours are classes of `page.css`, so that a
picture follows the page into dark mode and onto paper. Every text is escaped here.
"""

from __future__ import annotations

import math
from html import escape
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from bench.results import units

Label = Callable[[float], str]
Point = Tuple[float, float]
# The height of a line of text, and the mean width of one of its characters.
LINE, CHARACTER = 16.0, 6.4


class Style(NamedTuple):
    """The look of a series: the number of its colour in page.css, and the path of its mark from its centre."""

    colour: int
    mark: str


# Each mark is about 9 pixels wide: a move from its centre, then the outline.
MARKS = {
    "circle": "m-4.4 0a4.4 4.4 0 1 0 8.8 0a4.4 4.4 0 1 0-8.8 0z",
    "square": "m-4-4h8v8h-8z",
    "triangle": "m0-5.2l5.2 9h-10.4z",
    "diamond": "m0-5.6l5.2 5.6-5.2 5.6-5.2-5.6z",
    "down": "m0 5.2l5.2-9h-10.4z",
    "plus": "m-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "hourglass": "m-4.6-5h9.2l-3.2 5 3.2 5h-9.2l3.2-5z",
    "bow": "m-5-4.6l5 3.2 5-3.2v9.2l-5-3.2-5 3.2z",
    "hexagon": "m-5 0l2.5-4.4h5l2.5 4.4-2.5 4.4h-5z",
}
STYLES: Dict[str, Style] = {
    "torch": Style(1, "circle"),
    "tensorflow": Style(2, "square"),
    "onnxruntime": Style(3, "triangle"),
    "openvino": Style(4, "diamond"),
    "jax": Style(5, "down"),
    "numpy": Style(6, "plus"),
    "poptorch": Style(1, "hourglass"),
    "tensorflow_ipu": Style(2, "bow"),
    "popart": Style(3, "hexagon"),
}
OTHER = Style(0, "plus")


def style(backend: str) -> Style:
    """The look of a framework's series."""
    return STYLES.get(backend, OTHER)


def number(value: float) -> str:
    """A coordinate, as short as it can be without a visible difference."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


class Scale:
    """Maps values from `low` to `high` onto pixels from `start` to `end`.

    logarithmic   the values must be above 0
    """

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.low, self.high, self.start, self.end, self.logarithmic = low, high, start, end, logarithmic

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """The pixel of a value, or of the end of the scale that is closest to it."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int = 6) -> List[float]:
        """Round values within the scale, at most about so many."""
        return _log_ticks(self.low, self.high, most) if self.logarithmic else _ticks(self.low, self.high, most)


def linear(values: Sequence[float], start: float, end: float, zero: bool = True) -> Scale:
    """A scale that shows these values with some room, from 0 if `zero`."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    bottom = min(0.0, low) if zero else low - room
    return Scale(bottom, max(high + room, bottom + room), start, end)


def logarithmic(values: Sequence[float], start: float, end: float, room: float = 1.25) -> Scale:
    """A logarithmic scale that shows these values with some room. They must be above 0."""
    return Scale(min(values) / room, max(values) * room, start, end, logarithmic=True)


def _ticks(low: float, high: float, most: int) -> List[float]:
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> List[float]:
    """Powers of ten, with 2 and 5 between them where there is room; round steps if the scale has less than three."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        found = [value for value in values if low <= value <= high]
        if len(found) <= most:
            break
    if len(found) < 3:
        return [value for value in _ticks(low, high, most) if value > 0]
    return found[:: math.ceil(len(found) / most)]


class Picture:
    """One picture. `body` is its markup so far.

    name   what it shows, for people who do not see it
    """

    def __init__(self, name: str, width: float, height: float) -> None:
        self.name, self.width, self.height = name, width, height
        self.body: List[str] = []

    def svg(self) -> str:
        """The markup of the whole picture."""
        size = f'viewBox="0 0 {number(self.width)} {number(self.height)}"'
        wide = ' class="wide"' if self.width > 500 else ""
        return f'<svg role="group" aria-label="{escape(self.name)}" {size}{wide}>{"".join(self.body)}</svg>'

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "") -> None:
        """A text whose base line starts, or ends, or has its middle at a point."""
        classes = " ".join(part for part in (kind, {"end": "e", "middle": "m"}.get(anchor, "")) if part)
        attribute = f' class="{classes}"' if classes else ""
        self.body.append(f'<text x="{number(x)}" y="{number(y)}"{attribute}>{escape(text)}</text>')

    def rule(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line of a kind: grid, axis, roof, budget and so on."""
        self.body.append(
            f'<path class="{kind}" d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"/>',
        )

    def box(self, x1: float, y1: float, x2: float, y2: float, kind: str, name: str = "") -> None:
        """A filled rectangle of a kind."""
        place = f'x="{number(min(x1, x2))}" y="{number(min(y1, y2))}"'
        size = f'width="{number(max(0.6, abs(x2 - x1)))}" height="{number(abs(y2 - y1))}"'
        self._named("rect", f'class="{kind}" {place} {size}', name)

    def line(self, points: Sequence[Point], colour: int, kind: str = "") -> None:
        """A line through points, in the colour of a series."""
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.body.append(f'<path class="l c{colour}{" " + kind if kind else ""}" d="M{path}"/>')

    def whisker(self, start: Point, end: Point, colour: int) -> None:
        """A thin line between two points, with a short stroke across each end."""
        across = (3.0, 0.0) if start[0] == end[0] else (0.0, 3.0)
        path = f"M{number(start[0])} {number(start[1])}L{number(end[0])} {number(end[1])}"
        for x, y in (start, end):
            path += f"M{number(x - across[0])} {number(y - across[1])}"
            path += f"l{number(2 * across[0])} {number(2 * across[1])}"
        self.body.append(f'<path class="w c{colour}" d="{path}"/>')

    def mark(self, x: float, y: float, look: Style, name: str, bad: bool = False, hollow: bool = False) -> None:
        """The mark of a value. `name` says what it is, for people who do not see it and for those who point at it."""
        kind = f"p c{look.colour}{' bad' if bad else ''}{' o' if hollow else ''}"
        self._named("path", f'class="{kind}" d="M{number(x)} {number(y)}{MARKS[look.mark]}"', name)

    def dot(self, x: float, y: float, name: str, kind: str = "dot") -> None:
        """A small dot, such as one pair of a comparison."""
        self._named("circle", f'class="{kind}" cx="{number(x)}" cy="{number(y)}" r="2.6"', name)

    def _named(self, element: str, attributes: str, name: str) -> None:
        start = f"<{element} {attributes}"
        self.body.append(
            f'{start} role="img"><title>{escape(name, quote=False)}</title></{element}>' if name else f"{start}/>"
        )


class Plot(Picture):
    """A picture with an area between two axes. `x` and `y` are set before anything is drawn in it."""

    WIDTH, HEIGHT = 480.0, 300.0
    LEFT, RIGHT, TOP, BOTTOM = 60.0, 468.0, 44.0, 256.0

    x: Scale
    y: Scale

    def __init__(self, name: str, title: str) -> None:
        super().__init__(name, self.WIDTH, self.HEIGHT)
        self.text(0, 14, fitting(title, self.WIDTH), "t")

    def legend(self, backends: Sequence[str]) -> None:
        """The marks and names of the series, in a line above the area."""
        left = self.LEFT
        for backend in backends:
            look = style(backend)
            self.body.append(f'<path class="p c{look.colour}" d="M{number(left + 5)} 30{MARKS[look.mark]}"/>')
            self.text(left + 14, 34, fitting(backend, 120), f"c{look.colour}")
            left += 14 + CHARACTER * len(fitting(backend, 120)) + 18

    def axes(self, below: str, beside: str, x_label: Label, y_label: Label, x_ticks: Sequence[float] = ()) -> None:
        """Both axes with their ticks, grid lines and titles: `below` the horizontal one, `beside` the vertical one."""
        for value in self.y.ticks():
            y = self.y(value)
            self.rule(self.LEFT, y, self.RIGHT, y, "g")
            self.text(self.LEFT - 6, y + 4, y_label(value), "", "end")
        self.rule(self.LEFT, self.BOTTOM, self.RIGHT, self.BOTTOM, "a")
        end = -math.inf
        for value in x_ticks or self.x.ticks():
            x, text = self.x(value), x_label(value)
            half = CHARACTER * len(text) / 2
            self.rule(x, self.BOTTOM, x, self.BOTTOM + 4, "a")
            if x - half > end + 6:
                self.text(x, self.BOTTOM + 17, text, "", "middle")
                end = x + half
        self.text((self.LEFT + self.RIGHT) / 2, self.BOTTOM + 35, below, "n", "middle")
        self.body.append(
            f'<text class="n m" transform="translate(11 {number((self.TOP + self.BOTTOM) / 2)})rotate(-90)">'
            f"{escape(beside)}</text>"
        )


class Rows(Picture):
    """A picture with one row for each label, and one horizontal axis below all of them."""

    WIDTH, LABELS, ROW, TOP = 760.0, 270.0, 26.0, 34.0

    x: Scale

    def __init__(self, name: str, labels: Sequence[str], row: float = ROW) -> None:
        self.row = row
        self.bottom = self.TOP + row * len(labels) + 4
        super().__init__(name, self.WIDTH, self.bottom + 40)
        self.labels = labels
        self.left, self.right = self.LABELS + 10, self.WIDTH - 16

    def middle(self, index: int) -> float:
        """The height of the middle of a row."""
        return self.TOP + self.row * (index + 0.5)

    def axis(self, below: str, label: Label, ticks: Sequence[float] = ()) -> None:
        """The axis with its ticks and title, grid lines through all rows, and the labels."""
        for value in ticks or self.x.ticks(8):
            x = self.x(value)
            self.rule(x, self.TOP, x, self.bottom, "g")
            self.text(x, self.bottom + 16, label(value), "", "middle")
        for index, text in enumerate(self.labels):
            if index:
                self.rule(0, self.TOP + self.row * index, self.right, self.TOP + self.row * index, "s")
            self.text(self.LABELS, self.middle(index) + 4, fitting(text, self.LABELS), "b", "end")
        self.rule(self.left, self.bottom, self.right, self.bottom, "a")
        self.text((self.left + self.right) / 2, self.bottom + 34, below, "n", "middle")

    def legend(self, entries: Sequence[Tuple[str, Optional[Style], str]]) -> None:
        """Names of what is shown, in a line above the rows: a text, the mark of a series or none, or else a kind."""
        left = self.left
        for text, look, kind in entries:
            shown = fitting(text, 150)
            if look is not None:
                self.body.append(f'<path class="p c{look.colour}" d="M{number(left + 5)} 16{MARKS[look.mark]}"/>')
            elif kind:
                self.body.append(f'<rect class="{kind}" x="{number(left)}" y="11" width="12" height="10"/>')
            self.text(left + 17, 20, shown, f"c{look.colour}" if look else "")
            left += 17 + CHARACTER * len(shown) + 20


def fitting(text: str, width: float) -> str:
    """A text, cut to a width in pixels."""
    most = max(1, int(width / CHARACTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def percent(value: float) -> str:
    """A tick in percent."""
    return f"{value:.3g} %"


def plain(value: float) -> str:
    """A tick of a number without a unit."""
    return units.short(value)
