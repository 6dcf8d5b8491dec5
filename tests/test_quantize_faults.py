"""Faults of models, samples and devices through `edgenas quantize`: a recorded result or one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgenas.cli import invoke
from edgenas.quantization.device_scoring import Answer, Scorer
from tests.quantization_models import ModelWriter, chain_model, residual_model, samples


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with samples that fit the models."""
    np.savez(tmp_path / "samples.npz", input=samples(40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _quantize(folder, capsys, model, *, calibration="samples.npz", code=0):
    """What the command prints as JSON, and what it says to people."""
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    command = ["quantize", "model.onnx", "--device", "local", "--threads", "1"]
    found = invoke([*command, "--calibration", calibration, "--output", "out.onnx", "--json"])
    shown = capsys.readouterr()
    assert found == code, shown.err
    assert "Traceback" not in shown.err
    return json.loads(shown.out), shown.err


def _refused(folder, capsys, model, **options):
    """The message of an error; nothing was written, nothing was measured."""
    before = {path.name for path in folder.iterdir()} | {"model.onnx"}
    said, _ = _quantize(folder, capsys, model, code=1, **options)
    assert {path.name for path in folder.iterdir()} <= before
    assert said["error"]["hint"]
    return said["error"]["message"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(folder, capsys, value):
    model = residual_model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "project_w")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(values, "project_w"))
    assert "'project_w' are NaN or infinite" in _refused(folder, capsys, model)


def test_a_model_that_is_quantized_already(folder, capsys):
    _quantize(folder, capsys, residual_model())
    quantized = onnx.load(str(folder / "out-int8.onnx"))
    assert "already quantized: it has" in _refused(folder, capsys, quantized)


def test_samples_of_the_wrong_size(folder, capsys):
    np.savez(folder / "wrong.npz", input=np.zeros((4, 3, 9, 9), np.float32))
    assert "[3, 9, 9]" in _refused(folder, capsys, residual_model(), calibration="wrong.npz")


def test_samples_that_are_not_finite(folder, capsys):
    wrong = samples(40)
    wrong[3, 0, 0, 0] = np.nan
    np.savez(folder / "wrong.npz", input=wrong)
    said, _ = _quantize(folder, capsys, residual_model(), calibration="wrong.npz", code=1)
    assert "NaN" in said["error"]["message"] or "finite" in said["error"]["message"]
    assert not (folder / "out.onnx").exists()


def test_an_operator_without_an_integer_kernel(folder, capsys):
    w = ModelWriter()
    x = w.node("Softplus", [w.conv("input", "first", 3, 8)], "plus")
    x = w.conv(x, "second", 8, 8)
    said, _ = _quantize(folder, capsys, w.model(w.head(x, 8)))
    assert said["int8_output"] == "out-int8.onnx"
    reasons = {group["op"]: group["reason"] for group in said["stayed_float"]}
    assert reasons["Softplus"] == "the runtimes have no integer kernel for it"


def test_an_activation_that_is_always_zero(folder, capsys):
    """Its range has no width: the scale must not become zero, nor anything after it NaN."""
    model = chain_model()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("_b"))
    dead = np.full(bias.dims[0], -1e4, np.float32)
    bias.CopyFrom(numpy_helper.from_array(dead, bias.name))
    said, _ = _quantize(folder, capsys, model)
    distances = [trial["output_distance"] for trial in said["tried"] if trial["verdict"] != "failed"]
    assert distances
    assert all(np.isfinite(distance) for distance in distances)


def test_a_device_that_refuses_every_scheme(folder, capsys, monkeypatch):
    """As OpenVINO on a Cortex-A72 does when it compiles weights of eight bits."""
    score = Scorer.score

    def refusing(self, model, samples, *, name, optimized=True):
        if name.startswith("screen"):
            return Answer(error="object is not initialized")
        return score(self, model, samples, name=name, optimized=optimized)

    monkeypatch.setattr(Scorer, "score", refusing)
    said, told = _quantize(folder, capsys, residual_model())
    assert said["scheme"] == "float"
    assert said["int8_output"] is None
    assert {trial["reason"] for trial in said["tried"]} == {"object is not initialized"}
    assert "the output is the float model: no int8 model of it works: object is not initialized" in told
    assert (folder / "out.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_a_device_that_refuses_some_schemes(folder, capsys, monkeypatch):
    """The others compete on; what was refused is listed with what the device said."""
    score = Scorer.score

    def refusing(self, model, samples, *, name, optimized=True):
        if name.startswith("screen s8s8"):
            return Answer(error="object is not initialized")
        return score(self, model, samples, name=name, optimized=optimized)

    monkeypatch.setattr(Scorer, "score", refusing)
    said, _ = _quantize(folder, capsys, residual_model())
    failed = {trial["scheme"]: trial["reason"] for trial in said["tried"] if trial["verdict"] == "failed"}
    assert failed == {
        "s8s8-channel-minmax": "object is not initialized",
        "s8s8-tensor-minmax": "object is not initialized",
    }
    assert said["int8_output"] == "out-int8.onnx"
