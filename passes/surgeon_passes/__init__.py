"""The ground floor: the ONNX graph and every change that may be made to it."""
