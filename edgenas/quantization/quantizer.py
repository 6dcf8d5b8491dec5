"""From a float model, its calibration and a scheme to a QDQ model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from edgenas.quantization.bias_correction import corrected_biases
from edgenas.quantization.calibration import Calibration, calibrate
from edgenas.quantization.emitter import Plan, emit
from edgenas.quantization.engines import ENGINES
from edgenas.quantization.equalization import equalize
from edgenas.quantization.graph import Graph, attribute, copy_model
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.parameters import (
    Parameters,
    activation_parameters,
    smallest_scales,
    to_integers,
    weight_parameters,
)
from edgenas.quantization.placement import MOVING, WEIGHTED, Placement, place
from edgenas.quantization.preparation import finish, prepare
from edgenas.quantization.rounding import refined_weights
from edgenas.quantization.schemes import QuantizationScheme, replaced
from edgenas.quantization.smoothing import smooth, smoothable

METADATA = "edgenas.quantization"


class Quantizer:
    """Makes int8 candidates of one model; the calibration pass is made once and shared.

    Args:
        model: the float model as it was brought (see ``load_model`` and ``check_quantizable``).
        inputs: the calibration samples.
        facts: what the metadata of every candidate says beside its scheme (device, hashes).
    """

    def __init__(
        self, model: onnx.ModelProto, inputs: Inputs, facts: Mapping[str, str] | None = None
    ) -> None:
        self.original = model
        self.inputs = inputs
        self.facts = dict(facts or {})
        self.float_model = prepare(model)
        self._plans: dict[str, Plan] = {}
        self._variants: dict[bool, tuple[Graph, Calibration]] = {}

    def placement(self, scheme: QuantizationScheme) -> Placement:
        """What runs on integers under ``scheme``."""
        return place(self._variant(scheme.equalized)[0], scheme)

    @property
    def graph(self) -> Graph:
        """The prepared float graph."""
        return self._variant(equalized=False)[0]

    @property
    def calibration(self) -> Calibration:
        """What the calibration pass over the prepared float model saw."""
        return self._variant(equalized=False)[1]

    def can_equalize(self) -> bool:
        """Whether the model has layers, or normalised activations, that equalization could change."""
        return smoothable(self.float_model) > 0 or equalize(copy_model(self.float_model)) > 0

    def plan(self, scheme: QuantizationScheme) -> Plan:
        """All numbers of ``scheme``.

        What a layer's numbers are does not depend on which other layers stay float, so they are made
        once for all of them.
        """
        graph, calibration = self._variant(scheme.equalized)
        complete = self._complete_plan(replaced(scheme, float_layers=(), label=""))
        if not scheme.float_layers:
            return complete
        plan = Plan(scheme, place(graph, scheme), weights=complete.weights, biases=complete.biases)
        _plan_activations(graph, calibration, plan)
        return plan

    def _complete_plan(self, scheme: QuantizationScheme) -> Plan:
        if scheme.name in self._plans:
            return self._plans[scheme.name]
        graph, calibration = self._variant(scheme.equalized)
        plan = Plan(scheme, place(graph, scheme))
        _plan_activations(graph, calibration, plan)
        _plan_weights(graph, plan)
        if scheme.refined_rounding:
            plan.weights.update(refined_weights(graph, plan, self.inputs))
        if scheme.bias_corrected:
            plan.biases.update(corrected_biases(graph, plan, self.inputs))
        self._plans[scheme.name] = plan
        return plan

    def quantize(self, scheme: QuantizationScheme) -> onnx.ModelProto:
        """The QDQ model of ``scheme``, as it would be shipped.

        Raises:
            ModelError: another engine was asked, and cannot quantize the model.
        """
        if scheme.is_own:
            model = emit(self._variant(scheme.equalized)[0], self.plan(scheme))
        else:
            model = ENGINES[scheme.engine]().quantize(self.original, self.inputs, scheme.preset)
        finish(model, like=self.original)
        facts = {"scheme": scheme.to_json(), "calibration_sha256": self.inputs.sha256, **self.facts}
        for key, value in facts.items():
            model.metadata_props.add(key=f"{METADATA}.{key}", value=value)
        return model

    def _variant(self, equalized: bool) -> tuple[Graph, Calibration]:
        if equalized not in self._variants:
            model = self.float_model
            if equalized:
                model = copy_model(model)
                equalize(model)
                smooth(model, self.inputs)
            self._variants[equalized] = Graph(model), calibrate(model, self.inputs)
        return self._variants[equalized]


def weight_axis(node: onnx.NodeProto) -> int:
    """The axis of the output channels of a weighted node's weight."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "MatMul" else 0


def _plan_activations(graph: Graph, calibration: Calibration, plan: Plan) -> None:
    for tensor in plan.placement.quantized:
        owner = plan.placement.scale_owner(tensor)
        if owner not in plan.activations:
            plan.activations[owner] = _parameters_of(graph, calibration, plan.scheme, owner)
        plan.activations[tensor] = plan.activations[owner]


def _parameters_of(
    graph: Graph, calibration: Calibration, scheme: QuantizationScheme, tensor: str
) -> Parameters:
    if tensor in graph.constants:
        values = graph.constants[tensor]
        return activation_parameters(min(float(values.min()), 0.0), max(float(values.max()), 0.0), scheme)
    producer = graph.producer.get(tensor)
    if producer is not None and producer.op_type == "HardSigmoid":
        return activation_parameters(0.0, 1.0, scheme)
    while tensor not in calibration.histograms and producer is not None and producer.op_type in MOVING:
        tensor = producer.input[0]  # moving values does not change their range
        producer = graph.producer.get(tensor)
    return activation_parameters(*calibration.range_of(tensor, scheme.calibration), scheme)


def _plan_weights(graph: Graph, plan: Plan) -> None:
    for node in graph.nodes:
        if node.name not in plan.placement.integer or node.op_type not in WEIGHTED:
            continue
        weight, axis = graph.constants[node.input[1]], weight_axis(node)
        bias = _bias(graph, node)
        source = plan.activations[node.input[0]]
        smallest = smallest_scales(bias, float(source.scale), weight.shape[axis])
        parameters = weight_parameters(weight, axis, plan.scheme, smallest)
        plan.weights[node.name] = to_integers(weight, parameters), parameters
        if bias is not None:
            plan.biases[node.name] = bias


def _bias(graph: Graph, node: onnx.NodeProto) -> npt.NDArray[np.float32] | None:
    value = graph.constant(node, 2)
    return None if value is None else np.asarray(value, np.float32).reshape(-1)
