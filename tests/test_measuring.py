"""The host's side: a real agent on this machine, and agents that misbehave in every way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_models import QUICK, executable, write_images, write_model

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import (
    AgentProtocolError,
    DeviceError,
    DeviceUnreachableError,
    EdgeNASError,
    MeasurementError,
)
from edgenas.measuring import Agent, connect, noise_floor
from edgenas.measuring.archive import agent_archive, write_archive
from edgenas.measuring.local import LocalConnection
from edgenas.progress import Task, Watcher, watched_by

LOCAL = DeviceProfile(id="local", description="this machine", connection="local")


def patched_python(path: Path, patch: str) -> str:
    """An interpreter whose agent has been tampered with."""
    digest, _ = agent_archive()
    text = f"""#!{sys.executable}
import sys
archive = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path.insert(0, archive)
from edgenas_agent import main, onnxruntime_backend, service
{patch}
main.main()
"""
    assert digest
    return executable(path, text)


class Told(Watcher):
    """Collects what users would be told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def track(self, description: str, total: float | None) -> Any:
        return contextlib.nullcontext(Task())

    def warn(self, message: str) -> None:
        self.messages.append(message)

    def say(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with connect(LOCAL) as connected:
        yield connected


@pytest.fixture(scope="module")
def openvino_agent() -> Iterator[Agent]:
    pytest.importorskip("openvino", reason="openvino is not installed")
    with connect(msgspec.structs.replace(LOCAL, id="local-openvino", runtime="openvino")) as connected:
        yield connected


# --- what the real agent measures ------------------------------------------------------------------


def test_environment_is_this_machine(agent: Agent) -> None:
    found = agent.environment
    assert found.runtime == "onnxruntime"
    assert found.runtime_version == onnxruntime.__version__
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert found.cores == cores == agent.threads
    assert found.supported_opset >= 19 and found.supported_ir_version >= 9
    assert agent.refresh_environment().fingerprint() == found.fingerprint()


def test_opset_and_ir_version_are_really_supported(agent: Agent, tmp_path: Path) -> None:
    model = onnx.load(str(write_model(tmp_path / "m.onnx")))
    model.ir_version = agent.environment.supported_ir_version
    identity = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", list(model.graph.input), [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
        ],
    )  # fmt: skip
    for opset, loads in (
        (agent.environment.supported_opset, True),
        (agent.environment.supported_opset + 1, False),
    ):
        path = tmp_path / f"{opset}.onnx"
        newest = helper.make_model(identity, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        path.write_bytes(newest.SerializeToString())
        (network,) = agent.compare([agent.ship(path)], **QUICK)
        assert (network.error is None) == loads


def test_compare_yields_each_model_once(agent: Agent, tmp_path: Path) -> None:
    models = [agent.ship(write_model(tmp_path / f"{width}.onnx", width=width)) for width in (4, 8, 16)]
    networks = list(agent.compare([*models, models[0]], **QUICK))
    assert sorted(network.model_sha256 for network in networks) == sorted(models)
    for network in networks:
        assert network.error is None and network.statistics is not None
        statistics = network.statistics
        assert len(statistics.rounds_ms) >= 3
        assert min(statistics.rounds_ms) <= statistics.latency_ms <= max(statistics.rounds_ms)
        assert statistics.latency_ms <= statistics.latency_p90_ms
        assert statistics.runs >= 15


def test_compare_of_nothing_is_nothing(agent: Agent) -> None:
    assert list(agent.compare([], **QUICK)) == []


def test_compare_records_what_fails_and_goes_on(agent: Agent, tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"not a model")
    shapes = write_model(tmp_path / "dynamic.onnx", side="side")
    paths = [corrupt, write_model(tmp_path / "good.onnx"), shapes]
    models = [agent.ship(path) for path in paths]
    by_model = {network.model_sha256: network for network in agent.compare(models, **QUICK)}
    assert "refuses the model" in (by_model[models[0]].error or "")
    assert by_model[models[1]].error is None
    assert "dynamic dimension" in (by_model[models[2]].error or "")


def test_compare_ends_with_its_time(agent: Agent, tmp_path: Path) -> None:
    model = agent.ship(write_model(tmp_path / "m.onnx"))
    (network,) = agent.compare([model], threads=1, time_limit_s=0.0)
    assert network.statistics is None
    assert "time limit" in (network.error or "")


def test_trace_shows_fused_kernels(agent: Agent, tmp_path: Path) -> None:
    trace = agent.trace(agent.ship(write_model(tmp_path / "m.onnx", width=16)), threads=1, runs=10)
    convolution = next(kernel for kernel in trace.kernels if "Conv" in kernel.kind)
    assert convolution.layer == "stem"
    assert convolution.attributes["kernel_shape"] == [3, 3]
    assert convolution.attributes["activation"] == "Relu"
    assert convolution.inputs[0].shape == (1, 3, 8, 8)
    assert not any(kernel.kind == "Relu" for kernel in trace.kernels)
    assert all(kernel.latency_ms > 0 for kernel in trace.kernels)
    assert trace.run_latency_ms > 0
    assert {kernel.layer for kernel in trace.kernels} == {"stem", "head"}


def test_trace_of_one_run_has_the_same_structure(agent: Agent, tmp_path: Path) -> None:
    model = agent.ship(write_model(tmp_path / "m.onnx"))
    once, often = agent.trace(model, threads=1, runs=1), agent.trace(model, threads=1, runs=5)
    assert [(k.name, k.kind, k.inputs) for k in once.kernels] == [
        (k.name, k.kind, k.inputs) for k in often.kernels
    ]


def test_trace_restores_packed_weights(agent: Agent, tmp_path: Path) -> None:
    """ONNX Runtime's profile shows packed int8 weights as scalars."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._items = iter([{"x": np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)}])

        def get_next(self) -> Any:
            return next(self._items, None)

    path = tmp_path / "int8.onnx"
    quantize_static(
        str(write_model(tmp_path / "m.onnx")), str(path), Reader(),
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    trace = agent.trace(agent.ship(path), threads=1, runs=1)
    convolution = next(kernel for kernel in trace.kernels if kernel.kind == "QLinearConv")
    assert (convolution.inputs[3].dtype, convolution.inputs[3].shape) == ("int8", (8, 3, 3, 3))


def test_openvino_shows_what_it_executed(openvino_agent: Agent, tmp_path: Path) -> None:
    model = openvino_agent.ship(write_model(tmp_path / "m.onnx", width=16, batch="N"))
    trace = openvino_agent.trace(model, threads=1, runs=8)
    convolution = next(kernel for kernel in trace.kernels if kernel.kind == "Convolution")
    assert convolution.layer == "stem"
    assert convolution.attributes["kernel_shape"] == [3, 3]
    assert convolution.attributes["group"] == 1
    assert "Relu" in convolution.attributes["fused"]
    assert convolution.domain
    assert (trace.runtime, convolution.inputs[0].dtype) == ("openvino", "float")
    (network,) = openvino_agent.compare([model], **QUICK)
    assert network.error is None


def test_characterise_uses_a_fresh_process(agent: Agent, tmp_path: Path) -> None:
    found = agent.characterise(agent.ship(write_model(tmp_path / "m.onnx")), threads=1, runs=120)
    assert found.statistics.runs >= 120
    assert found.statistics.latency_p99_ms is not None
    assert found.load_ms > 0
    assert 10 << 20 < found.peak_memory_bytes < 1 << 30


# --- evaluation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "model_batch"), [(1, 1), (4, "N"), (7, "N"), (1, 4)])
@pytest.mark.parametrize("which", ["agent", "openvino_agent"])
def test_evaluate_gives_what_the_runtime_gives(
    request: pytest.FixtureRequest, which: str, batch: int, model_batch: int | str, tmp_path: Path
) -> None:
    if which == "openvino_agent" and model_batch == "N":
        batch = 1
    device = request.getfixturevalue(which)
    path, images = write_model(tmp_path / "m.onnx", batch=model_batch), write_images(tmp_path / "x.npy", 10)
    model, data = device.ship(path), device.ship(tmp_path / "x.npy")
    outputs = list(device.evaluate(model, {"x": data}, threads=1, batch=batch))
    found = np.concatenate([output["y"] for output in outputs])
    weight = np.asarray(numpy_helper.to_array(onnx.load(str(path)).graph.initializer[0]))
    session = onnxruntime.InferenceSession(str(write_model(tmp_path / "one.onnx")))
    expected = np.concatenate([session.run(None, {"x": image[None]})[0] for image in images])
    assert weight.shape == (8, 3, 3, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_evaluations_may_be_interleaved(agent: Agent, tmp_path: Path) -> None:
    write_images(tmp_path / "x.npy", 5)
    data = agent.ship(tmp_path / "x.npy")
    first, second = (agent.ship(write_model(tmp_path / f"{seed}.onnx", seed=seed)) for seed in (1, 2))
    fused = agent.evaluate(first, {"x": data}, threads=1)
    unfused = agent.evaluate(first, {"x": data}, threads=1, optimized=False)
    other = agent.evaluate(second, {"x": data}, threads=1)
    for a, b, c in zip(fused, unfused, other, strict=True):
        np.testing.assert_allclose(a["y"], b["y"], rtol=1e-4, atol=1e-5)
        assert not np.allclose(a["y"], c["y"])


@pytest.mark.parametrize("case", ["name", "shape", "type", "length", "file"])
def test_evaluate_says_what_does_not_fit(agent: Agent, tmp_path: Path, case: str) -> None:
    model = agent.ship(write_model(tmp_path / "m.onnx"))
    array: Any = np.zeros((4, 3, 8, 8), np.float32)
    name = "images" if case == "name" else "x"
    array = {"shape": array[:, :2], "type": array.astype(np.int64), "length": np.float32(1)}.get(case, array)
    np.save(tmp_path / "x.npy", array)
    if case == "file":
        (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(MeasurementError, match=r"input|array"):
        list(agent.evaluate(model, {name: agent.ship(tmp_path / "x.npy")}, threads=1))


def test_bounded_memory_over_many_items(agent: Agent, tmp_path: Path) -> None:
    """Outputs come in several replies, each a slice."""
    np.save(tmp_path / "x.npy", np.zeros((40, 3, 8, 8), np.float32))
    model, data = agent.ship(write_model(tmp_path / "m.onnx")), agent.ship(tmp_path / "x.npy")
    stream = agent.evaluate(model, {"x": data}, threads=1)
    assert next(stream)["y"].shape == (1, 8)
    stream.close()
    assert len(list(agent.evaluate(model, {"x": data}, threads=1, batch=1))) == 40


# --- shipping and the lease ------------------------------------------------------------------------


def test_shipping_needs_the_content_only_once(agent: Agent, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", width=5)
    content = agent.ship(path)
    cached = Path(os.environ["EDGENAS_CACHE"]) / "agent" / "content" / content
    written = cached.stat().st_ino
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())
    assert agent.ship(copy) == content
    assert cached.stat().st_ino == written


def test_dropped_content_is_sent_again(agent: Agent, tmp_path: Path) -> None:
    content = agent.ship(write_model(tmp_path / "m.onnx", width=6))
    cached = Path(os.environ["EDGENAS_CACHE"]) / "agent" / "content" / content
    cached.unlink()
    assert agent.trace(content, threads=1, runs=1).kernels
    cached.unlink()
    (network,) = agent.compare([content], **QUICK)
    assert network.error is None
    cached.unlink()
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(MeasurementError, match="not here any more"):
        agent.trace(content, threads=1, runs=1)


def test_two_agents_take_turns(agent: Agent, tmp_path: Path) -> None:
    told = Told()
    model = agent.ship(write_model(tmp_path / "m.onnx"))
    done: list[float] = []

    def measure(device: Agent) -> None:
        with watched_by(told):
            list(device.compare([model], threads=1, min_rounds=400, max_rounds=400))
        done.append(time.monotonic())

    with connect(LOCAL) as other:
        threads = [threading.Thread(target=measure, args=(device,)) for device in (agent, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(done) == 2
    assert any("is measuring for" in message for message in told.messages)


# --- agents that fail ------------------------------------------------------------------------------


def test_killed_agent_fails_that_model_only(tmp_path: Path) -> None:
    """SIGKILL in the middle of a measurement; the next request has a new agent."""
    with connect(LOCAL) as device:
        model = device.ship(write_model(tmp_path / "m.onnx"))
        pipe = device._conversation._pipe
        assert pipe is not None
        killer = threading.Timer(0.5, os.kill, (pipe._process.pid, signal.SIGKILL))
        killer.start()
        (network,) = device.compare([model], threads=1, min_rounds=5000, max_rounds=5000)
        killer.join()
        assert "SIGKILL" in (network.error or "") and network.crashed
        (network,) = device.compare([model], **QUICK)
        assert network.error is None


@pytest.mark.parametrize("moment", ["load", "run"])
def test_model_that_crashes_the_runtime_is_found(tmp_path: Path, moment: str) -> None:
    """Of six models one takes the process with it, while it is loaded or while all are run."""
    paths = [write_model(tmp_path / f"{width}.onnx", width=width) for width in range(3, 9)]
    patch = {
        "load": """
original = onnxruntime_backend.OnnxRuntimeBackend.load
def load(self, model, threads, **options):
    session = original(self, model, threads, **options)
    if session._inference.get_outputs()[0].shape[1] == 5:
        import os; os.abort()
    return session
onnxruntime_backend.OnnxRuntimeBackend.load = load
""",
        "run": """
original = service.measure_rounds
def measure_rounds(contenders, plan, before, pace):
    if any(one.session._inference.get_outputs()[0].shape[1] == 5 for one in contenders):
        import os; os.abort()
    original(contenders, plan, before, pace)
service.measure_rounds = measure_rounds
""",
    }[moment]
    profile = msgspec.structs.replace(LOCAL, python=patched_python(tmp_path / "python", patch))
    with connect(profile) as device:
        models = [device.ship(path) for path in paths]
        networks = list(device.compare(models, **QUICK))
    failed = [network for network in networks if network.error]
    assert len(networks) == 6
    assert [network.model_sha256 for network in failed] == [models[2]]
    assert "SIGABRT" in (failed[0].error or "")


def test_where_processes_begin_alike_a_crash_takes_nothing_with_it(tmp_path: Path) -> None:
    patch = """
original = onnxruntime_backend.OnnxRuntimeBackend.load
def load(self, model, threads, **options):
    session = original(self, model, threads, **options)
    channels = session._inference.get_outputs()[0].shape[1]
    if channels == 4:
        raise RuntimeError("four channels")
    if channels == 5:
        import os; os.abort()
    return session
onnxruntime_backend.OnnxRuntimeBackend.load = load
from edgenas_agent import fresh
fresh.this_program = lambda: [__file__, archive]
"""
    python = patched_python(tmp_path / "python", patch)
    with connect(msgspec.structs.replace(LOCAL, python=python, virtual=True)) as device:
        models = [device.ship(write_model(tmp_path / f"{width}.onnx", width=width)) for width in range(3, 7)]
        networks = {network.model_sha256: network for network in device.compare(models, threads=1)}
        assert device._conversation.starts == 1
    assert [networks[model].statistics is None for model in models] == [False, True, True, False]
    assert "four channels" in (networks[models[1]].error or "")
    assert "SIGABRT" in (networks[models[2]].error or "")


def test_crash_while_characterising_is_one_error(tmp_path: Path) -> None:
    patch = """
from edgenas_agent import fresh
service.characterise = lambda *arguments: __import__("os").abort()
fresh.this_program = lambda: [__file__, archive]
"""
    profile = msgspec.structs.replace(LOCAL, python=patched_python(tmp_path / "python", patch))
    with connect(profile) as device:
        model = device.ship(write_model(tmp_path / "m.onnx"))
        with pytest.raises(MeasurementError, match=r"cannot run the model|could not run"):
            device.characterise(model, threads=1)
        assert device.trace(model, threads=1, runs=1).kernels


def test_missing_interpreter(tmp_path: Path) -> None:
    profile = msgspec.structs.replace(LOCAL, python=str(tmp_path / "nothing"))
    with pytest.raises(DeviceUnreachableError, match="does not start") as caught, connect(profile):
        pass
    assert "python" in caught.value.hint


def test_missing_runtime(tmp_path: Path) -> None:
    patch = """
import sys
sys.modules["onnxruntime"] = None
"""
    profile = msgspec.structs.replace(LOCAL, python=patched_python(tmp_path / "python", patch))
    with (
        pytest.raises(DeviceUnreachableError, match="onnxruntime cannot be imported") as caught,
        connect(profile),
    ):
        pass
    assert "pip install onnxruntime" in caught.value.hint


def test_other_protocol(tmp_path: Path) -> None:
    greeting = '{"edgenas":"agent","protocol":3,"python":[3,11,0],"pid":1,"bits":64}'
    python = executable(tmp_path / "python", f"#!/bin/sh\necho '{greeting}'\ncat > /dev/null\n")
    with (
        pytest.raises(AgentProtocolError, match="speaks protocol 3"),
        connect(msgspec.structs.replace(LOCAL, python=python)),
    ):
        pass


@pytest.mark.parametrize(
    "body", ["exit 3", "echo hello; exit 0", "yes nonsense", "printf 'x%.0s' $(seq 100000)"]
)
def test_what_is_not_an_agent(tmp_path: Path, body: str) -> None:
    python = executable(tmp_path / "python", f"#!/bin/sh\n{body}\n")
    with pytest.raises(DeviceError, match="local"), connect(msgspec.structs.replace(LOCAL, python=python)):
        pass


def test_login_shells_may_print_before_the_greeting(tmp_path: Path) -> None:
    python = executable(
        tmp_path / "python", f'#!/bin/sh\necho "Welcome to the device"\nexec {sys.executable} "$@"\n'
    )
    with connect(msgspec.structs.replace(LOCAL, python=python)) as device:
        assert device.environment.runtime == "onnxruntime"


ENVIRONMENT = {
    "architecture": "pdp11", "cpu_model": "KA11", "cpu_features": [], "cores": 1, "memory_bytes": 1 << 20,
    "operating_system": "RT-11", "python_version": "3.9.1", "runtime": "onnxruntime",
    "runtime_version": "1.16.0", "supported_ir_version": 9, "supported_opset": 19,
}  # fmt: skip


class Hostile:
    """An agent that greets well and then answers every request with what a file says."""

    def __init__(self, folder: Path) -> None:
        self.answer = folder / "answer"
        greeting = '{"edgenas":"agent","protocol":2,"python":[3,11,0],"pid":1,"bits":64}'
        environment = json.dumps(
            {"id": 2, "kind": "result", "name": "", "data": {**ENVIRONMENT, "free_memory_bytes": None}}
        )
        python = executable(
            folder / "python",
            f"""#!/bin/sh
echo '{greeting}'
read -r line
echo '{{"id":1,"kind":"result","name":"","data":{{}}}}'
read -r line
echo '{environment}'
while read -r line; do cat {self.answer}; done
""",
        )
        self.profile = msgspec.structs.replace(LOCAL, python=python)


def message(kind: str, data: Any, *, number: int = 3, name: str = "") -> bytes:
    return json.dumps({"id": number, "kind": kind, "name": name, "data": data}).encode() + b"\n"


def statistics_with(**changes: Any) -> dict[str, Any]:
    good = {
        "latency_ms": 1.0, "latency_p50_ms": 1.0, "latency_p90_ms": 1.0, "latency_p99_ms": None,
        "latency_relative_halfwidth": 0.0, "runs": 5, "rounds_ms": [1.0],
    }  # fmt: skip
    return {**good, **changes}


def compared(**changes: Any) -> bytes:
    return message("result", {"results": {"0" * 64: {"statistics": statistics_with(**changes)}}})


@pytest.mark.parametrize("crashed", [False, True])
def test_a_crash_is_told_from_a_model_that_fails(tmp_path: Path, crashed: bool) -> None:
    hostile = Hostile(tmp_path)
    failed = {"error": "it ended", "crashed": crashed}
    hostile.answer.write_bytes(message("result", {"results": {"0" * 64: failed}}))
    with connect(hostile.profile) as device:
        (network,) = device.compare(["0" * 64], **QUICK)
    assert (network.error, network.crashed) == ("it ended", crashed)


def test_threads_that_never_rest_are_told_once(tmp_path: Path) -> None:
    hostile, told = Hostile(tmp_path), Told()
    hostile.answer.write_bytes(2 * message("event", {}, name="restless") + compared())
    with watched_by(told), connect(hostile.profile) as device:
        list(device.compare(["0" * 64], **QUICK))
    (told_of_threads,) = told.messages
    assert "never rest" in told_of_threads and "--threads 1" in told_of_threads


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\n",
        b"{}\n",
        b"\xff\n",
        message("result", {"results": {}}),
        message("result", {"results": {"1" * 64: {"statistics": statistics_with()}}}),
        message("result", {"results": {"0" * 64: {"statistics": statistics_with()}}}, number=99),
        message("result", []),
        message("oracle", {}),
        compared(latency_ms="fast"),
        compared(latency_ms=0.0),
        compared(rounds_ms=[1.0, -1.0]),
        compared(rounds_ms=[]),
        compared(runs=1.5),
        message("error", {"kind": 1}),
        message("event", "words", name="loading"),
        compared(latency_p50_ms=1).replace(b"1.0", b"NaN"),
        b'{"id":3,"kind":"result","name":"","data":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        b'{"id":3,"kind":"result","name":"","data":[' + b"{}," * 700_000 + b"{}]}\n",
    ],
    ids=range(18),
)
def test_nonsense_is_one_clear_error(tmp_path: Path, answer: bytes) -> None:
    hostile = Hostile(tmp_path)
    hostile.answer.write_bytes(answer)
    with connect(hostile.profile) as device, pytest.raises(AgentProtocolError, match="local"):
        list(device.compare(["0" * 64], **QUICK))


def test_endless_line_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.measuring.pipe.MAX_LINE_BYTES", 1 << 20)
    hostile = Hostile(tmp_path)
    hostile.answer.write_bytes(b"x" * (3 << 20))
    with connect(hostile.profile) as device, pytest.raises(AgentProtocolError):
        device.trace("0" * 64, threads=1)


def test_flood_of_stderr_is_cut(tmp_path: Path) -> None:
    python = executable(
        tmp_path / "python", f'#!/bin/sh\nyes | head -c 3000000 >&2\nexec {sys.executable} "$@"\n'
    )
    with connect(msgspec.structs.replace(LOCAL, python=python)) as device:
        pipe = device._conversation._pipe
        assert pipe is not None and len(pipe.stderr) <= 8 << 10


Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
Lines = st.one_of(
    st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"") + b"\n"),
    Json.map(lambda value: json.dumps(value).encode() + b"\n"),
    st.builds(message, st.sampled_from(["event", "result", "error"]), Json, name=st.text(max_size=8)),
    st.builds(lambda value: message("result", {"results": {"0" * 64: value}}), Json),
    st.builds(lambda value: compared(rounds_ms=[value], latency_ms=value), Json),
    st.builds(lambda value: message("result", [{"complete": value, "size": 1}]), Json),
    st.builds(lambda value: message("result", {"runs": 1, "run_latency_ms": 1, "kernels": [value]}), Json),
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    return Hostile(tmp_path_factory.mktemp("hostile"))


@settings(
    max_examples=int(os.environ.get("EDGENAS_FUZZ_EXAMPLES", "1000")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    line=Lines,
    ask=st.sampled_from(
        [
            lambda device: list(device.compare(["0" * 64], **QUICK)),
            lambda device: device.trace("0" * 64, threads=1),
            lambda device: device.characterise("0" * 64, threads=1),
            lambda device: list(device.evaluate("0" * 64, {"x": "1" * 64}, threads=1)),
            lambda device: device.refresh_environment(),
            lambda device: device.present(["0" * 64]),
        ]
    ),
)
def test_fuzzed_answers_raise_only_our_errors(
    hostile: Hostile, line: bytes, ask: Callable[[Agent], object]
) -> None:
    # The line that follows ends every request, so that no example waits for more.
    hostile.answer.write_bytes(line + b"end\n")
    with connect(hostile.profile) as device:
        try:
            ask(device)
        except EdgeNASError as error:
            assert error.message


# --- the rest --------------------------------------------------------------------------------------


def test_agent_inherits_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORT_SOMETHING", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    process = LocalConnection(
        msgspec.structs.replace(LOCAL, python=executable(tmp_path / "env", "#!/bin/sh\nenv\n"))
    ).start()
    output, _ = process.communicate(timeout=10)
    assert b"ORT_SOMETHING" not in output
    assert b"OMP_NUM_THREADS=1\n" in output


def test_archive_is_written_once(tmp_path: Path) -> None:
    path = write_archive(tmp_path)
    written = path.stat().st_mtime_ns
    assert write_archive(tmp_path) == path
    assert path.stat().st_mtime_ns == written


def test_noise_floor_is_between_the_models() -> None:
    assert noise_floor([[1.0] * 8, [2.0] * 8]) == 0
    assert noise_floor([[1.0, 1.1] * 4]) == pytest.approx(0.1 / 1.05)
    with pytest.raises(MeasurementError):
        noise_floor([[1.0]])
