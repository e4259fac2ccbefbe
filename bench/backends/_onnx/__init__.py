"""What ONNX Runtime, OpenVINO and PopART share: a graph as an ONNX model."""
