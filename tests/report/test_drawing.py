"""Scales and ticks, by hand, and what a picture says of itself."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from bench.report.drawing import Picture, Plot, Scale, Style, fitting, linear, logarithmic, number
from bench.results import units


def test_a_linear_scale_maps_its_ends_and_its_middle():
    scale = Scale(10.0, 20.0, 100.0, 300.0)

    assert [scale(value) for value in (10.0, 15.0, 20.0)] == [100.0, 200.0, 300.0]
    assert scale.clipped(99.0) == 300.0


def test_a_logarithmic_scale_gives_each_decade_the_same_room():
    scale = Scale(1.0, 100.0, 0.0, 200.0, logarithmic=True)

    assert [scale(value) for value in (1.0, 10.0, 100.0)] == pytest.approx([0.0, 100.0, 200.0])


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0.0, 10.0, 0, 1), [0, 2, 4, 6, 8, 10]),
        (Scale(0.0, 0.9, 0, 1), [0, 0.2, 0.4, 0.6, 0.8]),
        (Scale(-5.0, 5.0, 0, 1), [-4, -2, 0, 2, 4]),
        (Scale(1.0, 100.0, 0, 1, True), [1, 3, 10, 30, 100]),
        (Scale(1.0, 1e6, 0, 1, True), [1, 100, 10_000, 1e6]),
        (Scale(100.0, 150.0, 0, 1, True), [100, 110, 120, 130, 140, 150]),
    ],
)
def test_ticks_are_round_and_few(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("values", [[5.0], [0.0], [3.0, 3.0], [-2.0, 7.0]])
def test_a_scale_of_any_values_has_room_and_ticks(values):
    scale = linear(values, 0.0, 100.0)

    assert scale.low <= min(values) < scale.high
    assert scale.ticks()


def test_one_value_on_a_logarithmic_scale_is_in_its_middle():
    assert logarithmic([7.0], 0.0, 100.0)(7.0) == pytest.approx(50.0)


def test_every_mark_has_its_name_and_is_where_its_value_is():
    picture = Picture("rates", 100, 100)
    picture.mark(10, 20, Style(3, "square"), "torch: <5> & more")

    root = ElementTree.fromstring(picture.svg())

    assert root.get("aria-label") == "rates"
    (group,) = root.findall("g")
    assert group.get("class") == "p c3"
    (path,) = group.findall("path")
    assert path.get("d").startswith("M6 16h8")
    assert path.find("title").text == "torch: <5> & more"


def test_text_cannot_become_markup():
    hostile = "\"'><script>alert(1)</script>&amp;"
    plot = Plot(hostile, hostile)
    plot.x, plot.y = linear([1.0], plot.LEFT, plot.RIGHT), linear([1.0], plot.BOTTOM, plot.top)
    plot.legend([hostile])
    plot.axes(hostile, hostile, lambda value: hostile, lambda value: hostile)
    plot.box(0, 0, 1, 1, "s1", hostile)

    root = ElementTree.fromstring(plot.svg())

    assert root.get("aria-label") == hostile
    assert {element.tag for element in root.iter()} <= {"svg", "g", "text", "path", "rect", "title"}


def test_labels_of_an_axis_that_would_overlap_are_left_out():
    plot = Plot("batches", "batches")
    batches = [1.0, 1.1, 1.2, 512.0]
    plot.x, plot.y = logarithmic(batches, plot.LEFT, plot.RIGHT), linear([1.0], plot.BOTTOM, plot.top)
    plot.axes("batch", "rate", lambda value: f"{value:g} images", lambda value: "", batches)

    texts = [each.text for each in ElementTree.fromstring(plot.svg()).iter("text")]

    assert [text for text in texts if text and "images" in text] == ["1 images", "512 images"]


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (1.25, "1.2"), (-0.5, "-0.5"), (100.04, "100")])
def test_coordinates_are_short(value, text):
    assert number(value) == text


def test_long_texts_are_cut():
    assert fitting("abc", 64) == "abc"
    assert fitting("a" * 100, 64) == "a" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (999.0, "999"), (999.6, "1k"), (1500.0, "1.5k"), (3e6, "3M"), (2.84e10, "28.4G"), (0.0, "0")],
)
def test_short_numbers(value, text):
    assert units.short(value) == text


def test_units_of_rates_and_sizes():
    assert units.si(2.84e10, "FLOP/s") == "28.4 GFLOP/s"
    assert units.si(5.0, "B/s") == "5 B/s"
    assert [units.size(value) for value in (512, 1 << 18, 1.5 * (1 << 30))] == ["512 bytes", "256 KiB", "1.5 GiB"]
