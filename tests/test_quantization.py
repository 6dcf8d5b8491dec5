"""The quantization room: checks, statistics, rewrites, emission, corrections, decision."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgenas.datasets import Preprocessing, preprocessing_metadata
from edgenas.errors import (
    ArtifactError,
    DataError,
    MeasurementError,
    ModelError,
    UnknownNameError,
    UsageError,
)
from edgenas.quantization import outputs as compared
from edgenas.quantization.calibration import calibrate
from edgenas.quantization.contest import Contest
from edgenas.quantization.decision import (
    Judged,
    LatencyRatio,
    Limits,
    decide,
    estimated_drop,
    latency_ratio,
    paired_p_value,
)
from edgenas.quantization.engines import ENGINES, HALF, engine_schemes, half_schemes
from edgenas.quantization.equalization import equalize
from edgenas.quantization.exactness import defined_distance, named
from edgenas.quantization.graph import Graph, copy_model
from edgenas.quantization.inputs import ArrayInputs, load_arrays
from edgenas.quantization.kernel_costs import SegmentCosts
from edgenas.quantization.knapsack import Assignment, assignments, chosen
from edgenas.quantization.model_checks import check_quantizable, load_model
from edgenas.quantization.outputs import OutputScore, ReferenceOutputs
from edgenas.quantization.placement import place, why_float
from edgenas.quantization.preparation import prepare
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.ranges import METHODS, find_range
from edgenas.quantization.reference_run import fixed_batch, run_batches
from edgenas.quantization.samples import parse_options, spread, suspicious, trained_range
from edgenas.quantization.schemes import QuantizationScheme, first_schemes, with_float_layers
from edgenas.quantization.segments import segments_of
from edgenas.quantization.smoothing import smooth
from edgenas.quantization.statistics import Histogram
from edgenas.quantization.trials import TrialStore
from edgenas.records import Environment, LatencyStatistics, NetworkLatency
from tests.quantization_models import (
    ModelWriter,
    chain_model,
    distance,
    fused_kinds,
    outputs,
    residual_model,
    samples,
    token_samples,
    transformer_model,
)

INPUTS = ArrayInputs({"input": samples(48)})
UNSEEN = samples(64, seed=9)


@pytest.fixture(scope="module")
def residual() -> Quantizer:
    return Quantizer(residual_model(), INPUTS)


def _values(inputs):
    return inputs.batch(np.arange(len(inputs)))["input"].ravel()


def _saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


# --- models that are refused ----------------------------------------------------------------------


def test_a_corrupt_file_is_one_clear_error(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"this is not a protocol buffer \x00\xff" * 20)
    with pytest.raises(ModelError, match=r"broken\.onnx is not an ONNX model"):
        load_model(path)
    with pytest.raises(ModelError, match="cannot read"):
        load_model(tmp_path / "absent.onnx")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    model = chain_model()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[3] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "conv0_w"))
    path = _saved(model, tmp_path / "nan.onnx")
    with pytest.raises(ModelError, match="1 of 216 values of the weight 'conv0_w' are NaN or infinite"):
        check_quantizable(load_model(path), path)


def test_a_quantized_model_is_refused(tmp_path, residual):
    path = _saved(residual.quantize(QuantizationScheme()), tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match="already quantized"):
        check_quantizable(load_model(path), path)


def test_a_dynamic_dimension_names_the_command_that_fixes_it(tmp_path):
    w = ModelWriter()
    model = w.model(w.conv("input", "conv", 3, 4), shape=(3, "height", 8))
    path = _saved(model, tmp_path / "dynamic.onnx")
    with pytest.raises(ModelError, match="dimension 2") as caught:
        check_quantizable(load_model(path), path)
    assert "make_dynamic_shape_fixed --dim_param height" in caught.value.hint


def test_external_weights_must_lie_in_the_models_folder(tmp_path):
    model = chain_model()
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights", size_threshold=0)
    assert load_model(path).graph.initializer[0].raw_data
    parsed = onnx.load(str(path), load_external_data=False)
    parsed.graph.initializer[0].external_data[0].value = "../../secret"
    _saved(parsed, path)
    with pytest.raises(ModelError, match="outside its own folder"):
        load_model(path)


# --- statistics -----------------------------------------------------------------------------------

floats = st.floats(-1e4, 1e4, width=32)


@given(st.lists(floats, min_size=1, max_size=200), st.integers(1, 199))
@settings(max_examples=60, deadline=None)
def test_merged_histograms_are_what_one_pass_gives(values, cut):
    array = np.array(values, np.float32)
    whole, first, second = Histogram(), Histogram(), Histogram()
    whole.add(array)
    first.add(array[:cut])
    second.add(array[cut:])
    first.merge(second)
    assert (first.low, first.high, first.exponent) == (whole.low, whole.high, whole.exponent)
    np.testing.assert_array_equal(first.counts, whole.counts)
    assert whole.counts.sum() == len(array)


@pytest.mark.parametrize("method", sorted(METHODS))
@given(values=st.lists(floats, min_size=1, max_size=100))
@settings(max_examples=25, deadline=None)
def test_every_range_holds_zero_and_stays_within_the_values(method, values):
    histogram = Histogram()
    histogram.add(np.array(values, np.float32))
    low, high = find_range(histogram, method)
    assert min(*values, 0.0) - 1e-3 <= low <= 0 <= high <= max(*values, 0.0) + 1e-3


def test_percentiles_leave_out_a_lonely_outlier():
    histogram = Histogram()
    values = np.random.default_rng(0).normal(0, 1, 200_000).astype(np.float32)
    histogram.add(np.append(values, np.float32(60)))
    assert find_range(histogram, "minmax")[1] == 60
    assert find_range(histogram, "percentile")[1] < 6


def test_the_memory_of_calibration_does_not_grow_with_the_samples():
    model = prepare(chain_model())
    few, many = (calibrate(model, ArrayInputs({"input": samples(n)})) for n in (4, 400))
    assert few.histograms.keys() == many.histograms.keys()
    assert {h.counts.nbytes for h in many.histograms.values()} == {
        h.counts.nbytes for h in few.histograms.values()
    }


def test_batches_are_bounded_and_complete():
    found = [
        values["logits"]
        for values in run_batches(_named_output(), ["logits"], ArrayInputs({"input": samples(70)}))
    ]
    assert [len(batch) for batch in found] == [1, 32, 32, 5]


def _named_output():
    model = prepare(chain_model())
    model.graph.node[-1].output[0] = model.graph.output[0].name = "logits"
    return model


def test_samples_of_the_wrong_shape_are_a_data_error():
    with pytest.raises(DataError, match=r"\['N', 3, 8, 8\], the samples have the shape \[3, 9, 8\]"):
        calibrate(prepare(chain_model()), ArrayInputs({"input": np.zeros((4, 3, 9, 8), np.float32)}))


def test_activations_that_are_not_finite_are_named():
    bad = samples(4)
    bad[2, 0, 0, 0] = np.inf
    with pytest.raises(ModelError, match="'input' is NaN or infinite"):
        calibrate(prepare(chain_model()), ArrayInputs({"input": bad}))


# --- preparation and rewrites ---------------------------------------------------------------------


def test_preparation_folds_batch_norms_and_changes_nothing():
    model = chain_model()
    prepared = prepare(model)
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph.node}
    assert distance(outputs(model, UNSEEN), outputs(prepared, UNSEEN)) < 1e-5
    assert prepared.ir_version <= model.ir_version
    assert prepared.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def _hard_swish(form):
    w = ModelWriter()
    x = w.conv("input", "conv", 3, 8)
    six = w.constant("six", np.array(6, np.float32))
    shifted = w.node("Add", [x, w.constant("three", np.array(3, np.float32))], "shift")
    clipped = w.node("Clip", [shifted, w.constant("zero", np.array(0, np.float32)), six], "clip")
    if form == "gate first":
        x = w.node("Mul", [x, w.node("Div", [clipped, six], "div")], "mul")
    else:
        x = w.node("Div", [w.node("Mul", [x, clipped], "mul"), six], "div")
    return w.model(w.head(x, 8))


@pytest.mark.parametrize("form", ["gate first", "division last"])
def test_written_out_hard_swishes_are_recognised_exactly(form):
    model = _hard_swish(form)
    prepared = prepare(model)
    assert [n.op_type for n in prepared.graph.node].count("HardSwish") == 1
    assert distance(outputs(model, UNSEEN), outputs(prepared, UNSEEN)) < 1e-6


@pytest.mark.parametrize("keepdims", [0, 1])
def test_spatial_means_become_pools(keepdims):
    w = ModelWriter()
    x = w.node("Relu", [w.conv("input", "conv", 3, 8)], "relu")
    model = w.model(w.node("ReduceMean", [x], "mean", axes=[2, 3], keepdims=keepdims))
    prepared = prepare(model)
    assert "GlobalAveragePool" in {node.op_type for node in prepared.graph.node}
    np.testing.assert_allclose(outputs(model, UNSEEN), outputs(prepared, UNSEEN), rtol=1e-5)


def test_equalization_is_exact():
    model = prepare(chain_model(layers=4))
    equalized = copy_model(model)
    assert equalize(equalized) == 3
    changed = Graph(equalized).constants
    assert any(not np.array_equal(changed[name], array) for name, array in Graph(model).constants.items())
    assert distance(outputs(model, UNSEEN), outputs(equalized, UNSEEN)) < 1e-5


# --- emission -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", first_schemes(), ids=lambda scheme: scheme.name)
def test_every_first_scheme_stays_near_float(residual, scheme):
    reference = outputs(residual_model(), UNSEEN)
    assert distance(reference, outputs(residual.quantize(scheme), UNSEEN, fused=False)) < 0.2


def test_all_kernels_are_integer_ones(residual, tmp_path):
    kinds = fused_kinds(residual.quantize(QuantizationScheme()), tmp_path)
    assert kinds.count("QLinearConv") == 6
    assert kinds.count("QuantizeLinear") == 1
    assert not {"DequantizeLinear", "Conv", "Add", "Mul", "HardSwish", "HardSigmoid", "Relu", "Clip"} & set(
        kinds
    )


def test_fused_kernels_give_what_the_written_operators_say(residual):
    model = residual.quantize(QuantizationScheme(reduced_range=True))
    assert distance(outputs(model, UNSEEN, fused=False), outputs(model, UNSEEN)) < 0.03


def test_weights_are_stored_as_integers(residual):
    model = residual.quantize(QuantizationScheme())
    stored = {t.name: t.data_type for t in model.graph.initializer if t.name.endswith("weight_quantized")}
    assert len(stored) == 7
    assert set(stored.values()) == {TensorProto.INT8}


def test_metadata_batch_and_versions_survive():
    original = residual_model()
    helper.set_model_props(original, {"edgenas.labels": '["a"]', "owner": "me"})
    model = Quantizer(original, INPUTS, {"device": "local"}).quantize(QuantizationScheme())
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found["owner"] == "me"
    assert found["edgenas.quantization.device"] == "local"
    assert "u8s8" in found["edgenas.quantization.scheme"]
    assert found["edgenas.quantization.calibration_sha256"] == INPUTS.sha256
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [o.version for o in model.opset_import] == [17]
    assert model.ir_version == 8
    assert {o.domain for o in model.opset_import} == {""}
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    "floats", [("stem",), ("fc",), ("se_gate", "se_scale"), ("add", "swish"), ("expand", "flat")]
)
def test_any_layer_can_stay_float(residual, floats):
    model = residual.quantize(with_float_layers(QuantizationScheme(), floats, "test"))
    onnx.checker.check_model(model, full_check=True)
    assert distance(outputs(residual_model(), UNSEEN), outputs(model, UNSEEN, fused=False)) < 0.2


def test_everything_float_is_the_float_model(residual):
    names = [node.name for node in residual.graph.nodes]
    model = residual.quantize(with_float_layers(QuantizationScheme(), names, "test"))
    np.testing.assert_array_equal(outputs(residual.float_model, UNSEEN), outputs(model, UNSEEN))


def test_an_integer_output_of_the_model_keeps_its_name():
    w = ModelWriter()
    model = w.model(w.node("Relu", [w.conv("input", "conv", 3, 8)], "relu"))
    quantized = Quantizer(model, INPUTS).quantize(QuantizationScheme())
    assert quantized.graph.output[0].name == "relu_out"
    assert distance(outputs(model, UNSEEN), outputs(quantized, UNSEEN)) < 0.05


def test_a_zero_range_activation_and_a_dead_channel_are_harmless():
    model = chain_model()
    for tensor in model.graph.initializer:
        if tensor.name in {"conv2_w", "conv2_b"}:
            array = numpy_helper.to_array(tensor).copy()
            array[:] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for scheme in first_schemes():
        quantized = Quantizer(model, INPUTS).quantize(scheme)
        np.testing.assert_allclose(outputs(quantized, UNSEEN), outputs(model, UNSEEN), atol=1e-3)


def test_an_operator_without_an_integer_kernel_stays_float():
    w = ModelWriter()
    x = w.node("Softplus", [w.conv("input", "conv", 3, 8)], "plus")
    model = w.model(w.head(w.node("Relu", [w.conv(x, "last", 8, 8)], "relu"), 8))
    quantized = Quantizer(model, INPUTS).quantize(QuantizationScheme())
    assert "Softplus" in {node.op_type for node in quantized.graph.node}
    assert distance(outputs(model, UNSEEN), outputs(quantized, UNSEEN)) < 0.1


def test_the_reduced_range_uses_seven_bits(residual):
    model = residual.quantize(QuantizationScheme(reduced_range=True, refined_rounding=True))
    for tensor in model.graph.initializer:
        if tensor.name.endswith("weight_quantized"):
            assert np.abs(numpy_helper.to_array(tensor).astype(int)).max() <= 64


def test_quantizing_is_deterministic():
    made = [
        Quantizer(residual_model(), ArrayInputs({"input": samples(24)}))
        .quantize(QuantizationScheme(calibration="mse", bias_corrected=True, refined_rounding=True))
        .SerializeToString(deterministic=True)
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_corrections_bring_the_output_nearer():
    quantizer = Quantizer(residual_model(), ArrayInputs({"input": samples(128)}))
    reference = outputs(residual_model(), UNSEEN)
    coarse = QuantizationScheme(per_channel=False, reduced_range=True)
    plain = distance(reference, outputs(quantizer.quantize(coarse), UNSEEN, fused=False))
    better = QuantizationScheme(
        per_channel=False, reduced_range=True, bias_corrected=True, refined_rounding=True
    )
    assert distance(reference, outputs(quantizer.quantize(better), UNSEEN, fused=False)) < 0.9 * plain


def test_openvino_loads_the_result(residual, tmp_path):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    path = _saved(residual.quantize(QuantizationScheme()), tmp_path / "int8.onnx")
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU")
    found = compiled(UNSEEN[:1])[0]
    assert distance(outputs(residual_model(), UNSEEN[:1]), found) < 0.3


# --- mixed precision ------------------------------------------------------------------------------


def test_segments_are_a_partition_and_keep_residual_blocks_whole():
    graph = Graph(prepare(residual_model()))
    segments = segments_of(graph)
    assert [name for segment in segments for name in segment.nodes] == [node.name for node in graph.nodes]
    home = {name: i for i, segment in enumerate(segments) for name in segment.nodes}
    assert home["depthwise"] == home["project"] == home["add"]
    assert home["stem"] == home["stem_relu"] < home["add"] < home["fc"]


def _brute_force(costs, errors, price):
    best = None
    for code in range(2 ** len(errors)):
        now = [bool(code >> i & 1) for i in range(len(errors))]
        total = sum(
            costs.int8_ms[i] + price * errors[i] if now[i] else costs.float_ms[i] for i in range(len(errors))
        )
        total += sum(costs.change_ms[i] for i in range(len(errors)) if now[i] != (now[i - 1] if i else False))
        best = total if best is None else min(best, total)
    return best


@given(
    st.lists(
        st.tuples(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0, 1), st.floats(1e-6, 1e-2)),
        min_size=2,
        max_size=7,
    )
)
@settings(max_examples=40, deadline=None)
def test_the_fastest_assignment_is_the_best_of_all(rows):
    costs = SegmentCosts(*(tuple(row[i] for row in rows) for i in range(3)))
    errors = [row[3] for row in rows]
    found = assignments(costs, errors)
    assert found[0].latency_ms == pytest.approx(_brute_force(costs, errors, 0.0))
    for faster, slower in itertools.pairwise(found):
        assert slower.latency_ms == faster.latency_ms or slower.squared_error < faster.squared_error + 1e-12


def test_the_mixtures_that_promise_most_are_built_and_the_front_is_shown():
    found = [Assignment((i % 2 == 0, True, False), 1 + 0.1 * i, 2.0**-i) for i in range(12)]
    found.append(Assignment((False, True, True), 1.301, 2.0**-3))  # a neighbour adds nothing
    built = chosen(found, 6, everything=[True] * 3, rank=lambda a: (0.0, abs(a.latency_ms - 1.3)))
    assert len(built) <= 6
    assert {1.2, 1.3, 1.4} <= {round(a.latency_ms, 3) for a in built}
    assert 1.301 not in [a.latency_ms for a in built]
    assert built[-1].squared_error == min(a.squared_error for a in found)


# --- contest --------------------------------------------------------------------------------------


class _Moody:
    """Stands for a device whose state changes: ``slowness`` of each pass; float takes 1 ms, int8 half."""

    float_model = Path("float.onnx")
    agent = SimpleNamespace(profile=SimpleNamespace(virtual=False))

    def __init__(self, *slowness):
        self.slowness, self.asked = slowness, 0

    def latencies(self, models, *, purpose, rounds, paired):
        assert paired
        assert purpose == f"final pass {self.asked}"
        slow = self.slowness[min(self.asked, len(self.slowness) - 1)]
        self.asked += 1
        jitter = np.random.default_rng(self.asked).normal(1.0, 0.002, rounds)
        return [self._latency(slow * ms * jitter) for ms in (1.0, 0.5)[: len(models)]]

    def _latency(self, rounds_ms):
        quantiles = dict.fromkeys(
            ("latency_ms", "latency_p50_ms", "latency_p90_ms"), float(np.median(rounds_ms))
        )
        statistics = LatencyStatistics(
            **quantiles, latency_p99_ms=None, latency_relative_halfwidth=0.01, runs=len(rounds_ms),
            rounds_ms=tuple(rounds_ms.tolist()),
        )  # fmt: skip
        return NetworkLatency(model_sha256="0" * 64, threads=1, statistics=statistics)


def test_passes_in_which_something_else_had_the_device_count_for_nothing():
    """Half as fast for a while, as a neighbour on the same core makes it: the milliseconds stay right."""
    device = _Moody(1.5, 1.5, 1.5, 1.5, 1.0)
    contest = Contest(device, [Path("int8.onnx")], float_ms=1.0)
    contest.run()
    assert device.asked == 16, "the four spoilt passes are made up for"
    assert contest.latency_ms(0) == pytest.approx(0.5, rel=0.01)
    assert contest.float_latency_ms == pytest.approx(1.0, rel=0.01)
    assert contest.unsteady is None


def test_a_device_that_stays_slower_than_it_was_is_told():
    contest = Contest(_Moody(1.5), [Path("int8.onnx")], float_ms=1.0)
    contest.run()
    assert "float took 1 ms at first and 1.5 ms" in contest.unsteady
    assert contest.ratio(0).ratio == pytest.approx(0.5, rel=0.01)


def test_a_steady_device_is_asked_once():
    device = _Moody(1.0)
    contest = Contest(device, [Path("int8.onnx")], float_ms=1.0)
    contest.run()
    assert device.asked == 8
    assert contest.ratio(0).high < 1.0


# --- decision -------------------------------------------------------------------------------------


def _judged(name, latency_ms, drop, *, doubt=0.01, kernels=3):
    """Float takes 1 ms."""
    ratio = LatencyRatio(latency_ms, latency_ms * (1 - doubt), latency_ms * (1 + doubt))
    return Judged(name, latency_ms, None, 0.1, drop, ratio, kernels)


def test_the_best_bargain_wins():
    candidates = [_judged("a", 0.5, 0.004), _judged("b", 0.6, 0.001), _judged("c", 0.55, 0.0015)]
    verdict = decide(candidates, Limits(0.01, 1.0), float_accuracy=None)
    assert verdict.winner == "c"
    assert verdict.reasons["a"] == (
        "0.91x the winner's latency, expected to lose 0.40 points, the winner 0.15 points"
    )
    hardly_faster = [_judged("exact", 0.98, 0.0), _judged("fast", 0.5, 0.003)]
    assert decide(hardly_faster, Limits(0.01, 1.0), float_accuracy=None).winner == "fast"
    assert decide(hardly_faster, Limits(0.01, 1.0, 0.99), float_accuracy=None).winner == "exact"


def test_float_wins_where_int8_is_slower_or_wrong():
    verdict = decide(
        [_judged("slow", 1.2, 0.0), _judged("wrong", 0.5, 0.2)], Limits(0.01, 1.0), float_accuracy=None
    )
    assert verdict.winner is None
    assert verdict.best_int8 == "slow"
    assert verdict.reasons["slow"].startswith("slower")


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (_judged("lucky", 0.97, 0.0, doubt=0.05), "not faster than float beyond doubt"),
        (_judged("renamed", 0.5, 0.0, kernels=0), "no kernel of it runs on integers"),
    ],
)
@pytest.mark.parametrize("limit_ms", [None, 0.98, 0.1])
def test_float_wins_where_the_gain_is_luck_or_no_kernel_is_integer(candidate, reason, limit_ms):
    verdict = decide([candidate], Limits(0.01, 1.0, limit_ms), float_accuracy=None)
    assert verdict.winner is None
    assert verdict.best_int8 == candidate.name
    if limit_ms != 0.1:
        assert verdict.reasons[candidate.name].startswith(reason)


def test_a_device_that_cannot_tell_its_kernels_is_believed_by_the_clock():
    verdict = decide([_judged("a", 0.5, 0.0, kernels=None)], Limits(0.01, 1.0), float_accuracy=None)
    assert verdict.winner == "a"


def test_sixteen_bit_floats_compete_and_the_best_int8_stands_beside_them():
    half = Judged("float16", 0.5, None, 0.001, 0.0, LatencyRatio(0.5, 0.49, 0.51), None, integer=False)
    verdict = decide([half, _judged("int8", 0.6, 0.002)], Limits(0.01, 1.0), float_accuracy=None)
    assert (verdict.winner, verdict.best_int8) == ("float16", "int8")
    verdict = decide([half, _judged("int8", 0.3, 0.002)], Limits(0.01, 1.0), float_accuracy=None)
    assert (verdict.winner, verdict.best_int8) == ("int8", "int8")
    assert decide([half], Limits(0.01, 1.0), float_accuracy=None).best_int8 is None


def test_the_interval_of_a_ratio_holds_what_it_promises():
    """Passes differ by a percent: of equal models hardly one is called faster, of faster ones most are."""
    generator = np.random.default_rng(0)

    def called_faster(factor, disturbed=0):
        passes = generator.normal(0, 0.01, (8, 1)) + generator.normal(0, 0.02, (8, 6))
        mine = generator.normal(0, 0.01, (8, 1)) + generator.normal(0, 0.02, (8, 6)) + np.log(factor)
        mine[:disturbed] += np.log(2)
        return latency_ratio(np.exp(passes), np.exp(mine), comparisons=6).high < 1.0

    assert sum(called_faster(1.0) for _ in range(1000)) < 15
    assert sum(called_faster(0.9) for _ in range(200)) > 190
    assert sum(called_faster(0.9, disturbed=1) for _ in range(200)) > 180


def test_an_unreachable_limit_gives_the_fastest_accurate():
    verdict = decide(
        [_judged("a", 0.8, 0.0), _judged("b", 0.5, 0.005)], Limits(0.01, 1.0, 0.2), float_accuracy=None
    )
    assert verdict.winner == "b"


def test_labels_outweigh_the_expectation_where_there_are_many():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 5000)
    reference = labels.copy()
    wrong = labels.copy()
    wrong[:250] = (wrong[:250] + 1) % 4
    score = OutputScore(
        errors=(0.01,) * 5000, predictions=tuple(wrong.tolist()), flip_probabilities=(0.001,) * 5000
    )
    assert estimated_drop(score, reference.tolist(), labels) < 0.05
    noisy = OutputScore(
        errors=(0.01,) * 5000, predictions=tuple(wrong.tolist()), flip_probabilities=(0.1,) * 5000
    )
    assert estimated_drop(noisy, reference.tolist(), labels) == pytest.approx(0.05, abs=0.005)


def test_the_paired_test_is_exact():
    assert paired_p_value(0, 0) == 1.0
    assert paired_p_value(10, 0) == pytest.approx(2 / 2**10)


@pytest.mark.parametrize("memory_bytes", [2**20, 100, 0])
def test_reference_outputs_compare_batch_by_batch(tmp_path, monkeypatch, memory_bytes):
    monkeypatch.setattr(compared, "MEMORY_BYTES", memory_bytes)
    logits = np.random.default_rng(0).normal(0, 1, (10, 4)).astype(np.float32)
    batches = [{"logits": logits[:6]}, {"logits": logits[6:]}]
    reference = ReferenceOutputs(tmp_path, batches)
    assert reference.classifies
    assert reference.score(batches).distance == 0.0
    shifted = [{"logits": batch["logits"] * 1.1} for batch in batches]
    score = reference.score(shifted)
    assert score.distance == pytest.approx(0.1, rel=1e-3)
    assert list(score.predictions) == logits.argmax(1).tolist()


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        ([], "none, where the float model gives logits"),
        ([{"logits": np.ones((3, 4), np.float32)}] * 2, "logits, where the float model gives none"),
        ([{"scores": np.ones((3, 4), np.float32)}], "scores, where the float model gives logits"),
        ([{"logits": np.ones((2, 4), np.float32)}], "scores of the classes"),
        ([{"logits": np.ones((3, 5), np.float32)}], "scores of the classes"),
        ([{"logits": np.float32(1.0)}], "scores of the classes"),
    ],
)
def test_outputs_of_another_model_or_other_samples_are_a_failed_measurement(tmp_path, answered, said):
    reference = ReferenceOutputs(tmp_path, [{"logits": np.ones((3, 4), np.float32)}])
    with pytest.raises(MeasurementError, match=said):
        reference.score(answered)


def test_outputs_that_are_no_classes_have_no_predictions(tmp_path):
    boxes = {"boxes": np.ones((3, 5, 4), np.float32), "scores": np.ones((3, 5), np.float32)}
    reference = ReferenceOutputs(tmp_path, [boxes])
    assert not reference.classifies
    assert reference.score([boxes]).flips == 0.0


# --- samples and trials ---------------------------------------------------------------------------


def test_drawn_samples_are_disjoint_and_balanced():
    labels = np.repeat(np.arange(4), [40, 20, 20, 20])
    inputs = ArrayInputs({"input": np.arange(100, dtype=np.float32)[:, None]}, labels)
    chosen, rest = spread(inputs, 40, seed=3)
    assert not set(_values(chosen)) & set(_values(rest))
    assert np.bincount(chosen.labels).tolist() == [10, 10, 10, 10]


def test_suspicious_samples_are_named():
    array = np.zeros((5, 3, 2, 2), np.float32)
    found = suspicious(ArrayInputs({"input": array}, np.zeros(5, np.int64)))
    assert any("constant" in line for line in found)
    assert any("one class" in line for line in found)
    model = chain_model()
    known = preprocessing_metadata(Preprocessing(height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3), ["a"])
    onnx.helper.set_model_props(model, known)
    expected = trained_range(model)
    assert expected == (-1.0, 1.0)
    assert suspicious(ArrayInputs({"input": np.tanh(samples(9))}), expected) == []
    raw = ArrayInputs({"input": 255 * np.abs(np.tanh(samples(9)))})
    assert "trained on -1 to 1" in suspicious(raw, expected)[0]


def test_options_are_parsed():
    given_options = {"scale": None, "resize": None, "layout": None, "channels": None}
    options = parse_options(mean="0.1,0.2,0.3", std=[1, 1, 1], input_size="8x6", **given_options)
    assert (options.mean, options.input_size) == ((0.1, 0.2, 0.3), (8, 6))
    with pytest.raises(UsageError, match="--mean"):
        parse_options(mean="a,b", std=None, input_size=None, **given_options)


FLOAT32 = {"input": np.dtype(np.float32)}


def test_arrays_by_input_name_must_be_complete_and_alike(tmp_path):
    np.savez(tmp_path / "x.npz", input=np.zeros((2, 3)))
    loaded = load_arrays(tmp_path / "x.npz", FLOAT32)
    assert len(loaded) == 2
    assert loaded.batch([0])["input"].dtype == np.float32
    with pytest.raises(DataError, match="mask"):
        load_arrays(tmp_path / "x.npz", {**FLOAT32, "mask": np.dtype(np.int64)})
    np.savez(tmp_path / "ids.npz", input=np.zeros((2, 3), np.int32))
    with pytest.raises(DataError, match=r"is float32, .* has int32"):
        load_arrays(tmp_path / "ids.npz", FLOAT32)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_stay_on_disk_and_carry_what_a_metric_needs(tmp_path, save):
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    save(tmp_path / "x.npz", input=values, boxes=np.arange(20), labels=np.arange(20), other=np.zeros(3))
    loaded = load_arrays(tmp_path / "x.npz", FLOAT32)
    few = loaded.subset([3, 5]).subset([1])
    assert np.array_equal(few.batch([0])["input"], values[[5]])
    assert {name: array.tolist() for name, array in few.targets([0]).items()} == {"labels": [5], "boxes": [5]}
    assert few.sha256 == ArrayInputs({"input": values[[5]]}).sha256


def test_a_damaged_array_file_is_a_data_error(tmp_path):
    np.savez(tmp_path / "x.npz", input=np.zeros((200, 30), np.float32))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot read"):
        load_arrays(tmp_path / "cut.npz", FLOAT32)
    np.savez(tmp_path / "objects.npz", input=np.array([{}], object))
    with pytest.raises(DataError, match="Python objects"):
        load_arrays(tmp_path / "objects.npz", FLOAT32)


def test_trials_survive_a_cut_off_line(tmp_path):
    store = TrialStore(tmp_path / "trials.jsonl")
    store.put("a", OutputScore(errors=(0.5,)))
    with store.path.open("ab") as file:
        file.write(b'{"version":1,"key":"b","resu')
    again = TrialStore(store.path)
    assert again.get("a", OutputScore) == OutputScore(errors=(0.5,))
    assert again.get("b", OutputScore) is None
    again.put("b", OutputScore(errors=(0.25,)))
    assert TrialStore(store.path).get("b", OutputScore) == OutputScore(errors=(0.25,))


def test_trials_of_a_newer_version_are_refused(tmp_path):
    (tmp_path / "trials.jsonl").write_text('{"version":99,"key":"a","result":{}}\n')
    with pytest.raises(ArtifactError, match="newer version"):
        TrialStore(tmp_path / "trials.jsonl")


def _environment(architecture, features):
    return Environment(
        architecture=architecture, cpu_model="some", cpu_features=tuple(features), cores=2,
        memory_bytes=2**30, operating_system="Linux", python_version="3.11", runtime="onnxruntime",
        runtime_version="1.32", supported_ir_version=13, supported_opset=26,
    )  # fmt: skip


def test_kernels_that_compute_something_else_are_named(residual, tmp_path):
    path = _saved(residual.quantize(QuantizationScheme()), tmp_path / "int8.onnx")
    few = INPUTS.subset(range(8))
    meant, feed = defined_distance(residual.original, path, few), few.batch(range(8))["input"]
    here = distance(outputs(residual.original, feed), outputs(onnx.load(path), feed))
    assert meant == pytest.approx(here, rel=0.2)
    old = _environment("x86_64", ["avx2"])
    assert named("u8s8", 1.1 * meant, meant, old) is None
    assert "no VNNI, 16-bit sums of products saturate" in named("u8s8", 2 * meant, meant, old)
    assert "no VNNI" not in named("u8s8", 2 * meant, meant, _environment("x86_64", ["avx512_vnni"]))


def test_every_operator_in_float_has_a_reason():
    w = ModelWriter()
    x = w.node("Relu", [w.conv("input", "first", 3, 8)], "relu")
    x = w.node("Softplus", [x], "plus")
    model = w.model(w.head(w.conv(x, "second", 8, 8), 8))
    graph = Graph(prepare(model))
    reasons = {group.op: group.reason for group in why_float(graph, QuantizationScheme())}
    assert reasons == {"Softplus": "the runtimes have no integer kernel for it"}
    mixed = why_float(graph, with_float_layers(QuantizationScheme(), ["second"], "mixed"))
    assert next(group for group in mixed if group.op == "Conv").examples == ("second",)


def test_outputs_of_any_kind_have_a_distance(tmp_path):
    reference = [{"ids": np.array([[1, 2, 3, 4]]), "boxes": np.ones((1, 5, 4), np.float32)}]
    found = ReferenceOutputs(tmp_path / "same", reference).score(reference)
    assert found.distance == 0.0
    other = [{"ids": np.array([[1, 2, 3, 5]]), "boxes": np.ones((1, 6, 4), np.float32)}]
    found = ReferenceOutputs(tmp_path / "other", reference).score(other)
    assert found.squared_error == pytest.approx((0.25 + 1.0) / 2)


def test_a_minus_one_is_a_symbolic_batch(tmp_path):
    model = chain_model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    check_quantizable(model, tmp_path / "old.onnx")
    assert fixed_batch(model) is None


@pytest.mark.parametrize("name", sorted(ENGINES.keys() - {HALF}))
def test_other_engines_give_plain_qdq_with_the_models_own_interface(residual, name):
    pytest.importorskip(ENGINES[name].package)
    schemes = engine_schemes([name])
    assert [scheme.preset for scheme in schemes] == list(ENGINES[name].presets)
    made = residual.quantize(schemes[0])
    assert "QuantizeLinear" in {node.op_type for node in made.graph.node}
    assert [v.name for v in made.graph.input] == [v.name for v in residual.original.graph.input]
    assert [v.name for v in made.graph.output] == [v.name for v in residual.original.graph.output]
    reference = outputs(residual.original, UNSEEN)
    assert distance(reference, outputs(made, UNSEEN)) < 0.6  # NNCF is far off on untrained weights
    assert f'"engine":"{name}"' in next(
        e.value for e in made.metadata_props if e.key == "edgenas.quantization.scheme"
    )


def test_sixteen_bit_floats_keep_the_interface_and_halve_the_file(residual):
    made = ENGINES[HALF]().quantize(residual.original, ArrayInputs({"input": samples(2)}), "")
    assert [value.name for value in made.graph.input] == ["input"]
    assert all(
        v.type.tensor_type.elem_type == TensorProto.FLOAT for v in (*made.graph.input, *made.graph.output)
    )
    weights = [t for t in made.graph.initializer if t.name == "expand_w"]
    assert [t.data_type for t in weights] == [TensorProto.FLOAT16]
    expected = outputs(residual.original, samples(4))
    assert np.abs(outputs(made, samples(4)) - expected).max() < 0.02 * np.abs(expected).max()


def test_sixteen_bit_floats_are_tried_where_the_device_computes_in_them():
    assert half_schemes(_environment("x86_64", ["avx2", "avx512_vnni"])) == []
    assert [s.name for s in half_schemes(_environment("aarch64", ["fp16", "neon"]))] == ["float16"]


def test_an_engine_that_is_not_there_is_named():
    with pytest.raises(UnknownNameError, match="olive"):
        engine_schemes(["olive"])


@pytest.mark.parametrize("written_out", [False, True])
def test_smoothing_is_exact_and_takes_outliers_out_of_activations(written_out):
    model = prepare(transformer_model(written_out=written_out))
    ids = token_samples(32)
    before = outputs(model, ids)
    smoothed = copy_model(model)
    assert smooth(smoothed, ArrayInputs({"input": ids})) == 2
    assert np.allclose(before, outputs(smoothed, ids), rtol=1e-3, atol=1e-4)
    quantizer = Quantizer(model, ArrayInputs({"input": ids}))
    unseen = token_samples(64, seed=3)
    plain, even = (
        distance(outputs(model, unseen), outputs(quantizer.quantize(scheme), unseen))
        for scheme in (
            QuantizationScheme(per_channel=False, integer_sums=False),
            QuantizationScheme(per_channel=False, integer_sums=False, equalized=True),
        )
    )
    assert even < 0.7 * plain


def test_only_layers_with_weights_run_on_integers_where_sums_carry_outliers():
    graph = Graph(prepare(transformer_model()))
    whole, weighted = (place(graph, QuantizationScheme(integer_sums=s)).integer for s in (True, False))
    kinds = {node.name: node.op_type for node in graph.nodes}
    assert {kinds[name] for name in weighted} <= {"MatMul", "Relu", "Transpose", "Gather"}
    assert "Add" in {kinds[name] for name in whole}
