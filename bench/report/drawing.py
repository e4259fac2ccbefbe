"""A small writer of SVG: axes with round ticks, lines, whiskers, bars, and marks that each have a name.

Lengths are in pixels of the picture's own width; the page scales it. Colours are classes of `page.css`, so that a
picture follows the page into dark mode and onto paper. Every text is escaped here.
"""

from __future__ import annotations

import math
from html import escape
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypeVar

from bench.results import units

Label = Callable[[float], str]
Point = Tuple[float, float]
Row = TypeVar("Row")
# The height of a line of text, and the mean width of one of its characters.
LINE, CHARACTER = 16.0, 6.4


class Style(NamedTuple):
    """The look of a series: the number of its colour in page.css, and the name of its mark."""

    colour: int
    mark: str


# Each mark is about 9 pixels wide: where its outline starts, from its centre, and the outline.
MARKS: Dict[str, Tuple[Point, str]] = {
    "circle": ((-4.4, 0), "a4.4 4.4 0 1 0 8.8 0a4.4 4.4 0 1 0-8.8 0"),
    "square": ((-4, -4), "h8v8h-8"),
    "triangle": ((0, -5.2), "l5.2 9h-10.4"),
    "diamond": ((0, -5.6), "l5 5.6-5 5.6-5-5.6"),
    "down": ((0, 5.2), "l5.2-9h-10.4"),
    "plus": ((-1.7, -5), "h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3"),
    "hourglass": ((-4.6, -5), "h9.2l-3.2 5 3.2 5h-9.2l3.2-5"),
    "bow": ((-5, -4.6), "l5 3.2 5-3.2v9.2l-5-3.2-5 3.2"),
    "hexagon": ((-5, 0), "l2.5-4.4h5l2.5 4.4-2.5 4.4h-5"),
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

    logarithmic   `low` must be above 0
    """

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.low, self.high, self.start, self.end, self.logarithmic = low, high, start, end, logarithmic

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value if value > 0 else low), math.log(low), math.log(high)
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
    """A logarithmic scale that shows these values with some room. Those not above 0 are at its lower end."""
    known = [value for value in values if value > 0] or [1.0]
    return Scale(min(known) / room, max(known) * room, start, end, logarithmic=True)


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
    """One picture. Marks lie above whiskers, these above lines and boxes, and all of them above grid lines.

    What looks alike is one path or one group, so that a page with many pictures is small.

    name   what it shows, for people who do not see it
    """

    def __init__(self, name: str, width: float, height: float) -> None:
        self.name, self.width, self.height = name, width, height
        self.bands: List[str] = []
        self.rules: Dict[str, List[str]] = {}
        self.body: List[str] = []
        self.whiskers: Dict[str, List[str]] = {}
        self.marks: Dict[str, List[str]] = {}

    def svg(self) -> str:
        """The markup of the whole picture."""
        size = f'viewBox="0 0 {number(self.width)} {number(self.height)}"'
        wide = ' class="wide"' if self.width > 500 else ""
        parts = [*self.bands, *_paths(self.rules), *self.body, *_paths(self.whiskers)]
        parts += [f'<g class="{kind}">{"".join(marks)}</g>' for kind, marks in self.marks.items()]
        return f'<svg role="group" aria-label="{escape(self.name)}" {size}{wide}>{"".join(parts)}</svg>'

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "") -> None:
        """A text whose base line starts, or ends, or has its middle at a point."""
        classes = " ".join(part for part in (kind, {"end": "e", "middle": "m"}.get(anchor, "")) if part)
        attribute = f' class="{classes}"' if classes else ""
        self.body.append(f'<text x="{number(x)}" y="{number(y)}"{attribute}>{escape(text)}</text>')

    def rule(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line of a kind: grid, axis, roof and so on."""
        self.rules.setdefault(kind, []).append(f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}")

    def band(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A filled rectangle below everything else."""
        self.bands.append(f"<rect {_rectangle('band', x1, y1, x2, y2)}/>")

    def box(self, x1: float, y1: float, x2: float, y2: float, kind: str, name: str = "") -> None:
        """A filled rectangle of a kind."""
        self.body.append(_named("rect", _rectangle(kind, x1, y1, x2, y2), name))

    def line(self, points: Sequence[Point], colour: int, kind: str = "") -> None:
        """A line through points, in the colour of a series."""
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.body.append(f'<path class="l c{colour}{" " + kind if kind else ""}" d="M{path}"/>')

    def whisker(self, x: float, y1: float, y2: float, colour: int, caps: bool = True) -> None:
        """A thin vertical line, with a short stroke across each end."""
        path = f"M{number(x)} {number(y1)}V{number(y2)}"
        if caps:
            path = f"M{number(x - 3)} {number(y1)}h6m-3 0V{number(y2)}m-3 0h6"
        self.whiskers.setdefault(f"w c{colour}", []).append(path)

    def mark(self, x: float, y: float, look: Style, name: str, kind: str = "") -> None:
        """The mark of a value. `name` says what it is, for people who do not see it and for those who point at it.

        kind   bad: it is a failure; o: it is hollow
        """
        classes = f"p c{look.colour}{' ' + kind if kind else ''}"
        self.marks.setdefault(classes, []).append(_named("path", f'd="{outline(look.mark, x, y)}"', name))

    def dot(self, x: float, y: float, name: str) -> None:
        """A small dot, such as one pair of a comparison."""
        place = f'cx="{number(x)}" cy="{number(y)}" r="2.6"'
        self.marks.setdefault("dot", []).append(_named("circle", place, name))


def outline(mark: str, x: float, y: float) -> str:
    """The path of a mark with its centre at a point."""
    (left, up), rest = MARKS[mark]
    return f"M{number(x + left)} {number(y + up)}{rest}z"


def _paths(kinds: Mapping[str, Sequence[str]]) -> List[str]:
    return [f'<path class="{kind}" d="{"".join(parts)}"/>' for kind, parts in kinds.items()]


def _rectangle(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    place = f'x="{number(min(x1, x2))}" y="{number(min(y1, y2))}"'
    return f'class="{kind}" {place} width="{number(max(0.6, abs(x2 - x1)))}" height="{number(abs(y2 - y1))}"'


def _named(element: str, attributes: str, name: str) -> str:
    """An element with its name, as browsers show it and read it out."""
    if not name:
        return f"<{element} {attributes}/>"
    return f"<{element} {attributes}><title>{escape(name, quote=False)}</title></{element}>"


class Plot(Picture):
    """A picture with an area between two axes. `x` and `y` are set before anything is drawn in it.

    top   the height of the area's upper edge
    """

    WIDTH, HEIGHT = 480.0, 300.0
    LEFT, RIGHT, TOP, BOTTOM = 70.0, 468.0, 44.0, 256.0

    x: Scale
    y: Scale

    def __init__(self, name: str, title: str) -> None:
        super().__init__(name, self.WIDTH, self.HEIGHT)
        self.top = self.TOP
        self.text(0, 14, fitting(title, self.WIDTH), "t")

    def legend(self, backends: Sequence[str]) -> None:
        """The marks and names of the series, in a line above the area."""
        left = self.LEFT
        for backend in backends:
            look = style(backend)
            self.body.append(f'<path class="p c{look.colour}" d="{outline(look.mark, left + 5, 30)}"/>')
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
            f'<text class="n m" transform="translate(10 {number((self.top + self.BOTTOM) / 2)})rotate(-90)">'
            f"{escape(beside)}</text>"
        )


class Rows(Picture):
    """A picture with one row for each label, and one horizontal axis below all of them.

    widest   the characters of the longest label of all pictures that are shown together
    """

    WIDTH, WIDEST_LABEL, ROW, TOP = 760.0, 330.0, 23.0, 34.0

    x: Scale

    def __init__(self, name: str, labels: Sequence[str], widest: int = 0, row: float = ROW) -> None:
        self.row = row
        self.bottom = self.TOP + row * len(labels) + 4
        super().__init__(name, self.WIDTH, self.bottom + 40)
        self.labels = labels
        self.edge = min(self.WIDEST_LABEL, 1.05 * CHARACTER * max(widest, *map(len, labels)))
        self.left, self.right = self.edge + 10, self.WIDTH - 16

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
            self.text(self.edge, self.middle(index) + 4, fitting(text, self.edge), "b", "end")
        self.rule(self.left, self.bottom, self.right, self.bottom, "a")
        self.text((self.left + self.right) / 2, self.bottom + 34, below, "n", "middle")

    def legend(self, entries: Sequence[Tuple[str, Optional[Style], str]]) -> None:
        """Names of what is shown, in a line above the rows: a text, the mark of a series or none, or else a kind."""
        left = self.left
        for text, look, kind in entries:
            shown = fitting(text, 220)
            if look is not None:
                self.body.append(f'<path class="p c{look.colour}" d="{outline(look.mark, left + 5, 16)}"/>')
            elif kind:
                self.body.append(f'<rect class="{kind}" x="{number(left)}" y="11" width="12" height="10"/>')
            self.text(left + 17, 20, shown, f"c{look.colour}" if look else "")
            left += 17 + CHARACTER * len(shown) + 20


def parts(rows: Sequence[Row], most: int) -> List[Sequence[Row]]:
    """Rows in as few parts as have at most so many, all of about the same length."""
    count = -(-len(rows) // most)
    return [rows[len(rows) * index // count : len(rows) * (index + 1) // count] for index in range(count)]


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
