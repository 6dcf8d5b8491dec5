"""Small real models for the tests of quantization."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 8
CLASSES = 4


class ModelWriter:
    """Collects nodes of a small graph over images ``(N, 3, SIZE, SIZE)``."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(self, source: str, name: str, cin: int, cout: int, *, kernel: int = 3, groups: int = 1) -> str:
        shape = (cout, cin // groups, kernel, kernel)
        weight = self.generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        weight *= self.generator.uniform(0.2, 3.0, (cout, 1, 1, 1)).astype(np.float32)
        bias = self.generator.normal(0, 0.1, cout).astype(np.float32)
        inputs = [source, self.constant(f"{name}_w", weight), self.constant(f"{name}_b", bias)]
        return self.node(
            "Conv",
            inputs,
            name,
            kernel_shape=[kernel] * 2,
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def head(self, source: str, channels: int) -> str:
        pooled = self.node("GlobalAveragePool", [source], "pool")
        flat = self.node("Flatten", [pooled], "flat", axis=1)
        weight = self.generator.normal(0, 1, (CLASSES, channels)).astype(np.float32)
        inputs = [flat, self.constant("fc_w", weight), self.constant("fc_b", np.zeros(CLASSES, np.float32))]
        return self.node("Gemm", inputs, "fc", transB=1)

    def model(
        self, output: str, *, batch: object = "N", opset: int = 17, shape: tuple = (3, SIZE, SIZE),
        kind: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:  # fmt: skip
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("input", kind, [batch, *shape])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def residual_model(*, batch: object = "N", channels: int = 16, seed: int = 0) -> onnx.ModelProto:
    """Stem, depthwise block with a Clip, residual addition, HardSwish, squeeze-and-excitation, head."""
    w = ModelWriter(seed)
    six = [w.constant("zero", np.array(0, np.float32)), w.constant("six", np.array(6, np.float32))]
    x = w.node("Relu", [w.conv("input", "stem", 3, channels)], "stem_relu")
    y = w.node("Clip", [w.conv(x, "depthwise", channels, channels, groups=channels), *six], "depthwise_clip")
    y = w.conv(y, "project", channels, channels, kernel=1)
    x = w.node("Add", [x, y], "add")
    x = w.node("HardSwish", [w.conv(x, "expand", channels, channels)], "swish")
    gate = w.node("GlobalAveragePool", [x], "se_pool")
    gate = w.node("Relu", [w.conv(gate, "se_down", channels, 4, kernel=1)], "se_relu")
    gate = w.node(
        "HardSigmoid", [w.conv(gate, "se_up", 4, channels, kernel=1)], "se_gate", alpha=1 / 6, beta=0.5
    )
    x = w.node("Mul", [x, gate], "se_scale")
    return w.model(w.head(x, channels), batch=batch)


TOKENS, LENGTH, WIDTH = 50, 12, 16


def transformer_model(*, written_out: bool = False, seed: int = 0) -> onnx.ModelProto:
    """Embedding of whole numbers, one layer of attention and its network, a head; two loud channels."""
    w = ModelWriter(seed)

    def matrix(name: str, rows: int, columns: int) -> str:
        return w.constant(name, w.generator.normal(0, rows**-0.5, (rows, columns)).astype(np.float32))

    def norm(source: str, name: str) -> str:
        scale = w.generator.uniform(0.5, 1.5, WIDTH).astype(np.float32)
        scale[[3, 11]] *= 40  # what trained transformers do
        shift = w.generator.normal(0, 0.1, WIDTH).astype(np.float32)
        vectors = [w.constant(f"{name}_scale", scale), w.constant(f"{name}_shift", shift)]
        if not written_out:
            return w.node("LayerNormalization", [source, *vectors], name, axis=-1)
        mean = w.node("ReduceMean", [source], f"{name}_mean", axes=[-1])
        centred = w.node("Sub", [source, mean], f"{name}_centred")
        squared = w.node("Mul", [centred, centred], f"{name}_sq")
        deviation = w.node("Sqrt", [w.node("ReduceMean", [squared], f"{name}_var", axes=[-1])], f"{name}_dev")
        normal = w.node("Div", [centred, deviation], f"{name}_div")
        return w.node("Add", [w.node("Mul", [normal, vectors[0]], f"{name}_mul"), vectors[1]], name)

    x = w.node("Gather", [matrix("embedding", TOKENS, WIDTH), "input"], "embed")
    y = norm(x, "norm1")
    q, k, v = (w.node("MatMul", [y, matrix(f"{n}_w", WIDTH, WIDTH)], n) for n in "qkv")
    scores = w.node("MatMul", [q, w.node("Transpose", [k], "kt", perm=[0, 2, 1])], "scores")
    mixed = w.node("MatMul", [w.node("Softmax", [scores], "softmax", axis=-1), v], "mixed")
    x = w.node("Add", [x, w.node("MatMul", [mixed, matrix("o_w", WIDTH, WIDTH)], "o")], "residual")
    y = w.node("MatMul", [norm(x, "norm2"), matrix("up_w", WIDTH, 64)], "up")
    y = w.node("MatMul", [w.node("Relu", [y], "act"), matrix("down_w", 64, WIDTH)], "down")
    x = w.node("ReduceMean", [w.node("Add", [x, y], "residual2")], "pooled", axes=[1], keepdims=0)
    output = w.node("MatMul", [x, matrix("head_w", WIDTH, CLASSES)], "head")
    return w.model(output, shape=(LENGTH,), kind=TensorProto.INT64)


def token_samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, TOKENS, (count, LENGTH))


def chain_model(layers: int = 3, channels: int = 8, seed: int = 0) -> onnx.ModelProto:
    """Convolutions and Relus one after the other, with a batch norm."""
    w = ModelWriter(seed)
    x, cin = "input", 3
    for number in range(layers):
        x, cin = w.conv(x, f"conv{number}", cin, channels), channels
        if number == 0:
            parts = {
                "scale": w.generator.uniform(0.5, 2, channels),
                "shift": w.generator.normal(0, 1, channels),
                "mean": w.generator.normal(0, 1, channels),
                "variance": w.generator.uniform(0.5, 2, channels),
            }
            names = [w.constant(f"bn_{key}", value.astype(np.float32)) for key, value in parts.items()]
            x = w.node("BatchNormalization", [x, *names], "bn")
        x = w.node("Relu", [x], f"relu{number}")
    return w.model(w.head(x, channels))


def samples(count: int, seed: int = 0) -> np.ndarray:
    """Smooth images, so that activations look like those of pictures."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(0, 1, (count, 3, SIZE // 4, SIZE // 4))
    fine = generator.normal(0, 0.3, (count, 3, SIZE, SIZE))
    return (coarse.repeat(4, axis=2).repeat(4, axis=3) + fine).astype(np.float32)


def outputs(model: onnx.ModelProto, feed: np.ndarray, *, fused: bool = True) -> np.ndarray:
    """First output of a model in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input": feed})[0]


def fused_kinds(model: onnx.ModelProto, folder) -> list[str]:
    """The kinds of the kernels that ONNX Runtime makes of a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(str(folder / "optimized.onnx")).graph.node]


def distance(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(candidate - reference) / np.linalg.norm(reference))
