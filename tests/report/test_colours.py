"""Colours of the page can be read, and people who lack a kind of cone tell the series apart."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest

from bench.report import drawing, page

CSS = (page.FOLDER / "page.css").read_text()
# What each kind of colour blindness does to linear red, green and blue.
# G. M. Machado, M. M. Oliveira and L. A. F. Fernandes, A physiologically-based model for simulation of color vision
# deficiency, IEEE Trans. Vis. Comput. Graph. 15 (2009), severity 1.0
EYES = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
WHITE = (0.95047, 1.0, 1.08883)


def palettes():
    """The variables of :root: light, dark and printed."""
    roots = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", root)) for root in roots]


LIGHT, DARK, PRINTED = palettes()


def linear(colour):
    values = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector)) for row in matrix]


def contrast(one, other):
    """WCAG 2.1, relative luminance."""
    low, high = sorted(times(XYZ, linear(colour))[1] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour, eye):
    seen = [min(1.0, max(0.0, value)) for value in times(EYES[eye], linear(colour))]
    x, y, z = (value / white for value, white in zip(times(XYZ, seen), WHITE))

    def f(t):
        return t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116

    return 116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))


@pytest.mark.parametrize("palette", [LIGHT, DARK, PRINTED], ids=["light", "dark", "printed"])
@pytest.mark.parametrize("name", ["text", "soft", "bad", "link", *(f"k{index}" for index in range(7))])
def test_a_colour_of_text_has_a_contrast_of_4_5_and_more(palette, name):
    assert contrast(palette[name], palette["page"]) >= 4.5
    assert contrast(palette[name], palette["band"]) >= 4.0 or name.startswith("k")


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("palette", [LIGHT, DARK, PRINTED], ids=["light", "dark", "printed"])
def test_two_frameworks_differ_in_colour_for_everybody(palette, eye):
    used = sorted({look.colour for look in drawing.STYLES.values()})

    for one, other in itertools.combinations(used, 2):
        assert math.dist(lab(palette[f"k{one}"], eye), lab(palette[f"k{other}"], eye)) >= 20


def test_each_framework_has_a_mark_of_its_own():
    marks = [look.mark for look in drawing.STYLES.values()]

    assert len(set(marks)) == len(marks)


def test_a_cell_has_the_colour_of_its_framework_and_a_sign_of_its_own():
    signs = []
    for index, look in enumerate(drawing.STYLES.values(), 1):
        colour, sign = re.search(rf"\.f{index} {{ color: var\(--k(\d)\); }} .*content: \"(.*?)\"", CSS).groups()
        assert int(colour) == look.colour
        signs.append(sign)

    assert len(set(signs)) == len(signs)


def test_every_framework_has_a_style():
    backends = Path(page.FOLDER.parent / "backends")
    names = {path.stem for path in backends.iterdir() if not path.name.startswith("_")}

    assert names <= set(drawing.STYLES)


def test_dark_and_printed_pages_change_every_colour():
    assert set(LIGHT) == set(DARK) == set(PRINTED)
