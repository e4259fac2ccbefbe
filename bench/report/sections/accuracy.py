"""What training on real images reached: the loss at both ends, and how many images are right."""

from __future__ import annotations

from typing import List, Optional, Sequence

from bench.report import cases
from bench.report.content import Block, Cell, Column, Figure, Section, Table
from bench.report.drawing import Plot, linear, plain, style
from bench.report.reading import Result, Run, newest, number, text

POSITION = 100


def section(runs: Sequence[Run]) -> Optional[Section]:
    """None if no case was trained for epochs or scored on validation images."""
    results = [
        result
        for result in newest(runs)
        if number(result.record, "loss_last") is not None or number(result.record, "top1_percent") is not None
    ]
    if not results:
        return None
    axes = cases.differing([result.record for result in results])
    blocks: List[Block] = []
    trained = [
        result for result in results if number(result.record, "loss_first") and number(result.record, "loss_last")
    ]
    caption = "Mean loss of the first and of the last ten updates, over the epochs."
    table = _table(results, axes)
    blocks.append(Figure([_losses(trained, axes)], caption, table, brief=True) if trained else table)
    return Section("Accuracy", blocks)


def _losses(results: Sequence[Result], axes: Sequence[str]) -> str:
    plot = Plot("Loss over the epochs of training", "loss")
    epochs = [number(result.record, "epochs") or 0.0 for result in results]
    losses = [number(result.record, f"loss_{end}") or 0.0 for result in results for end in ("first", "last")]
    plot.x = linear([0.0, *epochs], plot.LEFT, plot.RIGHT - 10)
    plot.y = linear(losses, plot.BOTTOM, plot.top)
    plot.legend(cases.backends(results))
    plot.axes("epochs", "loss", plain, plain)
    for result, epoch in zip(results, epochs):
        look, name = style(text(result.record, "backend")), cases.label(result.record, axes)
        ends = [(0.0, number(result.record, "loss_first") or 0.0), (epoch, number(result.record, "loss_last") or 0.0)]
        plot.line([(plot.x(x), plot.y(y)) for x, y in ends], look.colour)
        for x, y in ends:
            title = f"{name}, {text(result.record, 'backend')}, after {x:.3g} epochs: loss {y:.3g}"
            plot.mark(plot.x(x), plot.y(y), look, title)
    return plot.svg()


def _table(results: Sequence[Result], axes: Sequence[str]) -> Table:
    heads = {"epochs": "epochs", "loss_first": "first loss", "loss_last": "last loss"}
    heads.update({"top1_percent": "top-1", "top5_percent": "top-5", "images_scored": "images"})
    rows = []
    for result in results:
        cells = [Cell(cases.label(result.record, axes), case=result.record["id"])]
        cells.append(Cell(text(result.record, "backend"), look=result.record["backend"]))
        for name in heads:
            value, unit = number(result.record, name), " %" if name.endswith("percent") else ""
            shown = f"{value:.2f}{unit}" if unit and value is not None else f"{value or 0:.4g}"
            cells.append(Cell("" if value is None else shown))
        rows.append(cells)
    return Table([Column("case"), Column("framework"), *(Column(head, number=True) for head in heads.values())], rows)
