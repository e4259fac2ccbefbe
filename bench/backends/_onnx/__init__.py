"""A graph as an ONNX model, for ONNX Runtime, OpenVINO and PopART."""

from __future__ import annotations

from typing import Any, Mapping

from bench.graph import Graph


def exported(graph: Graph, weights: Mapping[str, Any]) -> bytes:
    """The bytes of an ONNX file of a graph, in fp32."""
    from bench.backends._onnx import model

    return bytes(model.model(graph, weights).SerializeToString())
