"""What a workload computes: a Graph records primitive operations, and numpy says what each of them means."""

from bench.graph.primitives import GATES, Graph, Node, Tensor, Weight

__all__ = ["GATES", "Graph", "Node", "Tensor", "Weight"]
