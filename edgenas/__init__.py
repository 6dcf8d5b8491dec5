"""EdgeNAS: a task, a device and a budget in milliseconds in; a measured int8 ONNX model out."""

__version__ = "0.1.0"
