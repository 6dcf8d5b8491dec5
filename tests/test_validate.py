"""``validate``: what the device does with a model, against limits."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from edgenas.errors import ModelError, UsageError
from edgenas.pipeline.validate import Compared, Limits, judge, overall, validate
from edgenas.progress import Task, Watcher, watched_by
from edgenas.quantization.inputs import ArrayInputs
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.schemes import QuantizationScheme
from edgenas.records import LatencyStatistics
from edgenas.workspace import Workspace
from tests.quantization_models import chain_model, outputs, samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate")
    model = chain_model()
    (folder / "float.onnx").write_bytes(model.SerializeToString())
    int8 = Quantizer(model, ArrayInputs({"input": samples(32)})).quantize(QuantizationScheme())
    (folder / "int8.onnx").write_bytes(int8.SerializeToString())
    images = samples(40, seed=5)
    np.savez(folder / "samples.npz", input=images, labels=outputs(model, images).argmax(1))
    return folder


def _validate(folder, model="int8.onnx", **options):
    return validate(folder / model, device="local", threads=1, workspace=Workspace(folder), **options)


def test_everything_is_measured_against_the_reference(folder):
    found = _validate(
        folder, reference=folder / "float.onnx", data=folder / "samples.npz",
        latency_ms=1000.0, size_mb=1.0, max_drop=0.5,
    )  # fmt: skip
    assert found.verdict == "pass"
    assert found.reference_accuracy == 1.0
    assert found.accuracy == found.agreement
    assert 0 < found.output_distance < 0.3
    assert found.size_bytes == (folder / "int8.onnx").stat().st_size
    assert 0 < found.latency_p50_ms <= found.latency_p90_ms
    assert found.peak_memory_bytes > 0
    assert [finding.metric for finding in found.findings] == ["latency_ms", "size_mb", "drop"]


def test_without_data_outputs_are_compared_on_random_inputs(folder):
    found = _validate(folder, reference=folder / "float.onnx", size_mb=1e-6)
    assert found.verdict == "fail"
    assert found.accuracy is None
    assert found.output_distance > 0


def test_a_model_that_only_guesses_is_doubted(folder, tmp_path):
    told: list[str] = []

    class Listener(Watcher):
        def track(self, description, total):
            return contextlib.nullcontext(Task())

        def warn(self, message):
            told.append(message)

        def say(self, message):
            pass

    data = np.load(folder / "samples.npz")
    np.savez(tmp_path / "wrong.npz", input=data["input"], labels=np.arange(40) % 10)
    for reference in (None, folder / "float.onnx"):
        with watched_by(Listener()):
            _validate(folder, reference=reference, data=folder / "samples.npz")
        assert not told
        with watched_by(Listener()):
            _validate(folder, reference=reference, data=tmp_path / "wrong.npz")
        assert "no better than a guess" in told.pop()


def test_without_limits_it_only_measures(folder):
    found = _validate(folder, model="float.onnx")
    assert (found.verdict, found.findings, found.output_distance) == ("pass", (), None)


def test_bad_requests(folder, tmp_path):
    with pytest.raises(UsageError, match="max_drop compares accuracies"):
        _validate(folder, max_drop=0.01)
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="not an ONNX model"):
        _validate(tmp_path, model="broken.onnx")


def _latency(ms, halfwidth):
    return LatencyStatistics(
        latency_ms=ms, latency_p50_ms=ms, latency_p90_ms=ms, latency_p99_ms=None,
        latency_relative_halfwidth=halfwidth, runs=8, rounds_ms=(ms,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "verdict"), [(12.0, "pass"), (10.05, "inconclusive"), (9.95, "inconclusive"), (9.0, "fail")]
)
def test_a_latency_limit_inside_the_interval_is_inconclusive(limit, verdict):
    findings = judge(_latency(10.0, 0.01), 1, Compared(), Limits(latency_ms=limit))
    assert overall(findings) == verdict


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.995, "pass"), (0.985, "inconclusive"), (0.90, "fail")])
def test_a_drop_is_judged_with_its_paired_uncertainty(accuracy, verdict):
    outputs = Compared(accuracy=accuracy, reference_accuracy=1.0, drop_deviation=0.005)
    assert overall(judge(_latency(1.0, 0.01), 1, outputs, Limits(max_drop=0.01))) == verdict
