"""What ONNX Runtime, OpenVINO and PopART share: a graph as an ONNX model."""

from __future__ import annotations

from typing import Any, Mapping

from bench.graph import Graph


def exported(graph: Graph, weights: Mapping[str, Any]) -> bytes:
    """The ONNX model of a graph, fp32, as a file has it."""
    from bench.backends._onnx import model

    return bytes(model.model(graph, weights).SerializeToString())
