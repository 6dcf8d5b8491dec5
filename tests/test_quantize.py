"""``quantize`` from a file and samples to a decided model, on this machine's own agent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgenas.errors import BudgetNotMetError, DataError, ModelError, UsageError
from edgenas.pipeline.quantize import quantize
from edgenas.pipeline.validate import validate
from edgenas.quantization import packing
from edgenas.quantization.division import divide
from edgenas.quantization.graph import copy_model
from edgenas.quantization.inputs import ArrayInputs
from edgenas.workspace import Workspace
from tests.quantization_models import (
    CLASSES,
    ModelWriter,
    chain_model,
    outputs,
    residual_model,
    samples,
    token_samples,
    transformer_model,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, labelled samples and the result of quantizing it once."""
    folder = tmp_path_factory.mktemp("quantize")
    model = residual_model(channels=32)
    (folder / "float.onnx").write_bytes(model.SerializeToString())
    images = samples(120)
    np.savez(folder / "samples.npz", input=images, labels=outputs(model, images).argmax(1))
    return folder


@pytest.fixture(scope="module")
def result(folder):
    return _quantize(folder, output=folder / "out.onnx")


def _quantize(folder, model="float.onnx", **options):
    options = {"device": "local", "calibration": folder / "samples.npz", "threads": 1, **options}
    return quantize(folder / model, workspace=Workspace(folder), **options)


def test_the_result_says_what_was_tried_and_why(result, folder):
    assert result.calibration_images == 72
    assert result.selection_images == 48
    assert result.float_accuracy == 1.0
    assert result.int8_output == str(folder / "out-int8.onnx")
    assert len({trial.scheme for trial in result.tried}) == len(result.tried) >= 8
    assert all(trial.reason for trial in result.tried)
    chosen = [trial.scheme for trial in result.tried if trial.verdict == "chosen"]
    assert chosen == ([result.scheme] if result.scheme != "float" else [])


def test_what_is_written_is_what_was_decided(result, folder):
    written, best = (onnx.load(path) for path in (result.output, result.int8_output))
    quantized = "QuantizeLinear" in {node.op_type for node in written.graph.node}
    assert quantized == (result.scheme != "float")
    assert "QuantizeLinear" in {node.op_type for node in best.graph.node}
    assert result.latency_ms <= result.float_latency_ms
    assert (folder / "out.onnx").stat().st_size == result.size_bytes


def test_a_second_run_measures_nothing_again(result, folder):
    trials = folder / "out.trials" / "trials.jsonl"
    before = trials.read_bytes()
    again = _quantize(folder, output=folder / "out.onnx")
    assert trials.read_bytes() == before
    assert again == result
    assert {json.loads(line)["version"] for line in before.splitlines()} == {1}


def test_an_impossible_limit_keeps_the_best_so_far(result, folder, tmp_path):
    with pytest.raises(BudgetNotMetError, match="the fastest form of this model takes") as caught:
        _quantize(folder, output=folder / "out.onnx", latency_ms=1e-6)
    assert caught.value.exit_code == 3
    assert caught.value.result.output == str(folder / "out.onnx")


def test_a_model_without_a_kernel_on_integers_stays_float_with_a_warning(tmp_path):
    w = ModelWriter()
    x = w.node("Softplus", ["input"], "plus")
    model = w.model(w.node("ReduceMean", [x], "mean", axes=[2, 3], keepdims=0))
    (tmp_path / "float.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "samples.npz", input=samples(12))
    found = _quantize(tmp_path, output=tmp_path / "out.onnx")
    assert found.scheme == "float"
    assert found.int8_output is None
    assert any("the output is the float model" in warning for warning in found.warnings)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "float.onnx").read_bytes()
    assert {trial.verdict for trial in found.tried} == {"failed"}


def test_bad_input_is_refused_before_anything_is_measured(folder, tmp_path):
    with pytest.raises(ModelError, match="cannot read"):
        _quantize(folder, model="absent.onnx")
    with pytest.raises(DataError, match="there is no data at"):
        _quantize(folder, calibration=tmp_path / "absent")
    with pytest.raises(UsageError, match="max_drop 5"):
        _quantize(folder, max_drop=5)
    np.savez(tmp_path / "wrong.npz", input=np.zeros((4, 3, 9, 9), np.float32))
    with pytest.raises(DataError, match="9, 9"):
        _quantize(folder, calibration=tmp_path / "wrong.npz")


def _values(inputs):
    return inputs.batch(np.arange(len(inputs)))["input"].ravel()


def test_parts_share_no_sample():
    labels = np.arange(500) % CLASSES
    parts = divide(ArrayInputs({"input": np.arange(500, dtype=np.float32)[:, None]}, labels), None, seed=1)
    calibrating, selecting = (set(_values(p)) for p in (parts.calibration, parts.selection))
    assert len(calibrating) == 300
    assert not calibrating & selecting
    assert set(_values(parts.screening)) <= selecting


def test_one_sample_is_enough_to_try_and_is_warned_about():
    parts = divide(ArrayInputs({"input": samples(1)}), None, seed=0)
    assert any("give more" in warning for warning in parts.warnings)


def test_layers_that_a_search_wants_float_are_tried(tmp_path):
    (tmp_path / "float.onnx").write_bytes(chain_model().SerializeToString())
    np.savez(tmp_path / "samples.npz", input=samples(16))
    found = _quantize(tmp_path, output=tmp_path / "out.onnx", start_float_layers=["conv0"])
    assert any("searched" in trial.scheme for trial in found.tried)


def detector_model():
    """Two inputs and three outputs, one of them whole numbers: boxes, scores and the best class."""
    w = ModelWriter()
    x = w.node("Relu", [w.conv("input", "stem", 3, 32)], "stem_relu")
    up = w.node("Resize", [x, "", w.constant("scales", np.array([1, 1, 2, 2], np.float32))], "up")
    x = w.node("Relu", [w.conv(up, "neck", 32, 32)], "neck_relu")
    boxes = w.node("Mul", [w.conv(x, "boxes", 32, 4), "size"], "scaled")
    best = w.node("ArgMax", [w.conv(x, "scores", 32, 6)], "best", axis=1)
    model = w.model(boxes)
    size = helper.make_tensor_value_info("size", TensorProto.FLOAT, ["N", 1, 1, 1])
    model.graph.input.append(size)
    for name, kind in (("scores_out", TensorProto.FLOAT), (best, TensorProto.INT64)):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    (folder / "float.onnx").write_bytes(detector_model().SerializeToString())
    sizes = np.random.default_rng(0).uniform(1, 2, (24, 1, 1, 1)).astype(np.float32)
    np.savez(folder / "samples.npz", input=samples(24), size=sizes, wanted=np.arange(24))
    (folder / "rating.py").write_text(
        "import numpy as np\n"
        "def area(outputs, targets):\n"
        "    assert targets['wanted'].shape == (1,)\n"
        "    return np.abs(outputs['scaled_out']).mean(axis=(1, 2, 3))\n"
        "def whole(outputs, targets):\n"
        "    return 0.5\n"
    )
    return folder


def test_a_detector_is_judged_by_the_energy_of_its_outputs_error(detector):
    found = _quantize(detector, output=detector / "out.onnx", max_drop=0.05)
    assert found.accuracy is None
    assert found.int8_output is not None
    assert min(t.output_distance for t in found.tried if t.output_distance is not None) < 0.2
    assert not any("points" in trial.reason for trial in found.tried)


def test_a_metric_of_the_users_rates_each_sample(detector, monkeypatch):
    monkeypatch.chdir(detector)
    found = _quantize(detector, output=detector / "rated.onnx", metric="rating:area", max_drop=1.0)
    assert found.float_accuracy > 0
    assert found.accuracy == pytest.approx(found.float_accuracy, rel=0.2)
    with pytest.raises(UsageError, match="not one finite number for each of the 1 samples") as caught:
        _quantize(detector, output=detector / "rated.onnx", metric="rating:whole")
    assert "higher is better" in caught.value.hint
    for wrong, reason in (
        ("rating", "not of the form"),
        ("rating:no", "no function"),
        ("no_such:x", "import"),
    ):
        with pytest.raises(UsageError, match=reason):
            _quantize(detector, metric=wrong)


def test_the_result_explains_what_stayed_float(result, folder):
    assert {part.layer for part in result.sensitivity} >= {"stem", "fc"}
    assert all(part.squared_error >= 0 and part.operators > 0 for part in result.sensitivity)
    assert all(group.reason and group.examples for group in result.stayed_float)
    first = [trial for trial in result.tried if trial.defined_distance is not None]
    assert {trial.scheme.split("-")[0] for trial in first} == {"u8s8", "s8s8", "u8u8"}
    assert (folder / "out.trials" / "quantize.json").is_file()


def test_runtimes_own_format_is_written_on_request(folder):
    import onnxruntime

    found = _quantize(folder, output=folder / "out.onnx", ort=True)
    assert found.ort_output == str(folder / "out.ort")
    session = onnxruntime.InferenceSession(found.ort_output, providers=["CPUExecutionProvider"])
    feed = samples(2, seed=5)
    expected = outputs(onnx.load(found.output), feed)
    assert np.abs(session.run(None, {"input": feed})[0] - expected).max() < 0.1 * np.abs(expected).max()


def test_sixteen_bit_floats_compete_on_request(folder, tmp_path):
    """Here they are cast to and fro: measured like every other candidate, they lose."""
    found = _quantize(folder, output=tmp_path / "out.onnx", engines=("float16",))
    half = next(trial for trial in found.tried if trial.scheme == "float16")
    assert half.verdict == "rejected"
    assert half.latency_ms > 0
    assert half.output_distance < 0.01
    assert half.size_bytes < 0.7 * found.float_size_bytes
    assert found.int8_output is not None


def test_a_model_that_only_guesses_is_doubted(folder, tmp_path):
    unrelated = np.arange(120) % CLASSES
    np.savez(tmp_path / "wrong.npz", input=samples(120), labels=unrelated)
    found = _quantize(folder, calibration=tmp_path / "wrong.npz", output=tmp_path / "out.onnx")
    assert any("no better than a guess" in warning for warning in found.warnings)


def test_a_transformer_with_whole_numbers_as_input_is_quantized(tmp_path):
    model, ids = transformer_model(), token_samples(40)
    (tmp_path / "float.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "samples.npz", input=ids.astype(np.int32), labels=outputs(model, ids).argmax(1))
    found = _quantize(tmp_path, output=tmp_path / "out.onnx")
    assert any("weighted" in trial.scheme for trial in found.tried)
    assert not {trial.verdict for trial in found.tried} <= {"failed"}
    assert any(group.op == "Softmax" for group in found.stayed_float)


def test_a_model_beyond_the_limit_of_one_file_is_quantized(folder, tmp_path, monkeypatch):
    """As above 2 GB: weights stand beside the graph, here, on the device and in what is written."""
    monkeypatch.setattr(packing, "LARGEST_BYTES", 3000)
    model = onnx.load(str(folder / "float.onnx"))
    large = tmp_path / "large.onnx"
    onnx.save(copy_model(model), str(large), save_as_external_data=True, location="large.bin")
    found = _quantize(
        tmp_path, "large.onnx", calibration=folder / "samples.npz", output=tmp_path / "out.onnx"
    )
    assert not {trial.verdict for trial in found.tried} <= {"failed"}
    assert found.float_size_bytes > (tmp_path / "large.bin").stat().st_size > 3000
    for written in {found.output, found.int8_output}:
        assert [file.name for file in packing.weight_files(Path(written))] == [f"{Path(written).name}.data"]
        feed = samples(2, seed=5)
        expected = outputs(model, feed)
        assert np.abs(outputs(onnx.load(written), feed) - expected).max() < 0.2 * np.abs(expected).max()
    measured = validate(
        found.output,
        device="local",
        reference=tmp_path / "large.onnx",
        threads=1,
        workspace=Workspace(folder),
    )
    assert measured.size_bytes == found.size_bytes
    assert measured.output_distance < 0.2
