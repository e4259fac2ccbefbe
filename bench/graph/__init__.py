"""What a workload computes: a Graph records primitives, and the numpy reference defines each of them."""

from bench.graph.primitives import GATES, Graph, Node, Tensor, Weight

__all__ = ["GATES", "Graph", "Node", "Tensor", "Weight"]
