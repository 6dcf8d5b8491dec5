"""Builds the ONNX model of a network: random weights for profiling, trained ones for shipping.

The same emitter serves both, so that the kernels profiled are the kernels shipped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edgenas.errors import ModelError
from edgenas.search_spaces.network import Network
from edgenas.search_spaces.onnx_graph import GraphWriter, Tensor
from edgenas.search_spaces.onnx_weights import RandomWeights, TrainedWeights, WeightSource
from edgenas.search_spaces.qdq import SIGNED, get_scheme

INPUT_NAME = "input"
TOKENS_NAME = "input_ids"
OUTPUT_NAME = "logits"
MINIMUM_OPSET, TEXT_OPSET = 14, 17
BUILDER_VERSION = 1
"""Raise it whenever the same network becomes another model: tables know models by it."""


def build_onnx(
    network: Network,
    *,
    weights: Mapping[str, npt.NDArray[np.generic]] | None = None,
    batch: int | None = 1,
    opset: int = 17,
    ir_version: int = 8,
    precision: bool = True,
    int8_scheme: str = "u8s8",
    seed: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The network as an ONNX model with output ``logits``.

    Its input is ``input``, float32 (N, C, H, W), or ``input_ids``, int64 (N, tokens), for text.

    Args:
        weights: trained arrays by key, batch norm folded; random ones from ``seed`` when None.
        batch: a fixed batch size, or None for a symbolic dimension named ``batch``.
        opset: at least 14, the first with HardSwish, for text 17, the first with LayerNormalization;
            ask the device's runtime what it accepts at most.
        precision: writes int8 layers as QDQ with synthetic scales; everything is float when False.
        int8_scheme: types of activations and weights: u8s8, s8s8 or u8u8.
        metadata: written as ``metadata_props``.

    Raises:
        ModelError: weights do not fit the network, or the opset is too old; also where trained
            weights meet int8 layers, whose real scales only calibration can give.
        UnknownNameError: there is no such int8 scheme.
    """
    least = TEXT_OPSET if network.vocabulary else MINIMUM_OPSET
    if opset < least:
        raise ModelError(f"opset {opset} was asked for, the builder writes {least} and later")
    quantized = precision and any(layer.precision == "int8" for layer in network.layers)
    if weights is not None and quantized:
        raise ModelError(
            "trained weights cannot be written as int8: the scales here are synthetic",
            hint="build with precision=False and quantize the model with calibration data",
        )
    source: WeightSource = RandomWeights(seed) if weights is None else TrainedWeights(weights)
    writer = GraphWriter(source, get_scheme(int8_scheme) if quantized else None)
    _write_layers(writer, network)
    model = helper.make_model(
        _graph(writer, network, "batch" if batch is None else batch),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
        producer_name="edgenas",
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def _write_layers(writer: GraphWriter, network: Network) -> None:
    tensor = Tensor(SIGNED, value=TOKENS_NAME if network.vocabulary else INPUT_NAME)
    for layer in network.layers:
        tensor = writer.layer(layer, tensor)
    if tensor.quantized is not None:
        writer.dequantize(tensor.quantized, f"{network.layers[-1].name}/output")
    writer.nodes[-1].output[0] = OUTPUT_NAME


def _graph(writer: GraphWriter, network: Network, batch: int | str) -> onnx.GraphProto:
    if network.vocabulary:
        shape = [batch, network.input_shape[-1]]
        inputs = helper.make_tensor_value_info(TOKENS_NAME, TensorProto.INT64, shape)
    else:
        inputs = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [batch, *network.input_shape])
    outputs = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [batch, network.classes])
    return helper.make_graph(writer.nodes, network.name, [inputs], [outputs], writer.initializers)
