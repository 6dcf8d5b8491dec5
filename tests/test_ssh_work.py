"""What is done with a device behind ssh: gates, two hosts at once, OpenVINO, a device short of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from loopback_sshd import Server
from onnx import TensorProto, helper, numpy_helper
from small_models import QUICK, write_model

from edgenas.agent.lease import Lease, lease_path
from edgenas.device_profiles import DeviceProfile
from edgenas.errors import MeasurementError
from edgenas.measuring import connect
from edgenas.pipeline.check import check
from edgenas.workspace import Workspace


def host(folder: Path, profile: DeviceProfile) -> Workspace:
    """A workspace of its own that knows the device."""
    (folder / "device_profiles").mkdir(parents=True)
    lines = [
        f"{name} = {json.dumps(getattr(profile, name))}"
        for name in ("description", "connection", "runtime", "ssh_config", "python")
    ]
    (folder / "device_profiles" / "board.toml").write_text("\n".join(lines))
    return Workspace(folder)


def convolutions(path: Path, count: int, *, side: int = 32, channels: int = 16) -> Path:
    """A network of equal convolutions; what lies between them takes ``side**2 * channels`` floats."""
    weights = [
        numpy_helper.from_array(np.full((channels, channels if i else 1, 3, 3), 0.01, np.float32), f"w{i}")
        for i in range(count)
    ]
    nodes = [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1] * 4) for i in range(count)]
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{count}"], ["y"]))
    ends = [
        helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 1, side, side]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], weights)
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_the_gate_runs_over_ssh(server: Server, tmp_path: Path) -> None:
    workspace, baseline = host(tmp_path, server.profile), tmp_path / "ci" / "baseline.json"
    model = convolutions(tmp_path / "net.onnx", 6)
    accepted = check([model], baseline=baseline, device="board", threads=1, update=True, workspace=workspace)
    assert accepted.updated
    found = check([model], baseline=baseline, workspace=workspace)
    assert found.device == "board"
    by_metric = {finding.metric: finding for finding in found.findings}
    assert by_metric["size_bytes"].verdict == by_metric["peak_memory_bytes"].verdict == "pass"
    assert by_metric["latency_ms"].verdict != "fail"
    slower = check([convolutions(tmp_path / "b" / "net.onnx", 9)], baseline=baseline, workspace=workspace)
    (latency,) = (finding for finding in slower.findings if finding.metric == "latency_ms")
    assert latency.verdict == "fail" and latency.value > 1.2 * latency.baseline


def test_two_hosts_take_turns_on_one_device(server: Server, tmp_path: Path) -> None:
    """Two programs with workspaces and caches of their own, which know nothing of each other."""
    programs = []
    for name in ("first", "second"):
        workspace = host(tmp_path / name, server.profile)
        write_model(workspace.root / "net.onnx", width=4 if name == "first" else 5)
        command = [sys.executable, "-m", "edgenas", "validate", "net.onnx", "--device", "board", "--json"]
        source = str(Path(__file__).parents[1])
        environment = {**os.environ, "EDGENAS_CACHE": str(workspace.root / "cache"), "PYTHONPATH": source}
        programs.append(
            subprocess.Popen(
                command, cwd=workspace.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    # The device is measuring for somebody else at first, so that both must wait for the same lock.
    lease = Lease(lease_path(server.folder / "home" / "agent"), "the night build")
    with lease.held(lambda _: None):
        told = [_line_with(program, b"the night build") for program in programs]
    answers = [program.communicate() for program in programs]
    assert all(b"waiting for it" in line for line in told)
    for program, (output, _) in zip(programs, answers, strict=True):
        assert program.returncode == 0
        assert json.loads(output)["latency_ms"] > 0


def _line_with(program: subprocess.Popen[bytes], said: bytes) -> bytes:
    assert program.stderr is not None
    lines = []
    for line in program.stderr:
        lines.append(line)
        if said in line:
            return line
    raise AssertionError(b"".join(lines))


def test_the_lock_of_the_usual_folder_is_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "anna"))
    anna = lease_path(tmp_path / "anna" / "edgenas" / "agent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "bert"))
    assert lease_path(tmp_path / "bert" / "edgenas" / "agent") == anna
    assert lease_path(tmp_path / "mine") == tmp_path / "mine" / "measuring.lock"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_waits_for_the_same_lock() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o1777)
        path = Path(folder) / "lock"
        other = subprocess.Popen(
            [sys.executable, "-c", NOBODY, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with Lease(path, "root").held(lambda _: None):
            assert other.stdin is not None and other.stdout is not None
            other.stdin.write("begin\n")
            other.stdin.flush()
            assert other.stdout.readline() == "root\n"
        assert other.communicate(timeout=60)[0] == "held\n"
    assert other.returncode == 0


NOBODY = """
import os, pathlib, sys
from edgenas.agent.lease import Lease
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.stdin.readline()
with Lease(pathlib.Path(sys.argv[1]), "nobody").held(lambda holder: print(holder, flush=True)):
    print("held", flush=True)
"""


@pytest.fixture
def small_board(server: Server, tmp_path: Path) -> DeviceProfile:
    """The device with 900 MB of address space for whatever runs there."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -v 900000\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return msgspec.structs.replace(server.profile, python=str(python))


def test_a_device_short_of_memory_says_so(small_board: DeviceProfile, tmp_path: Path) -> None:
    huge = convolutions(tmp_path / "huge.onnx", 2, side=2048, channels=64)
    with connect(small_board) as device:
        content = device.ship(huge)
        (failed,) = device.compare([content], **QUICK)
        assert failed.statistics is None
        assert failed.error == "the device's memory does not suffice, 1024 MiB in one piece were asked for"
        for ask in (device.trace, device.characterise):
            with pytest.raises(
                MeasurementError, match="'board' cannot run the model: the device's memory"
            ) as e:
                ask(content, threads=1)
            assert "edgenas device check board" in e.value.hint
        # The same agent goes on with what fits.
        (network,) = device.compare([device.ship(write_model(tmp_path / "m.onnx"))], **QUICK)
        assert network.statistics is not None


def test_openvino_over_ssh(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    profile = msgspec.structs.replace(server.profile, runtime="openvino")
    with connect(profile) as device:
        assert device.environment.runtime == "openvino"
        model = device.ship(convolutions(tmp_path / "net.onnx", 3))
        (network,) = device.compare([model], **QUICK)
        assert network.statistics is not None
        assert any("Conv" in kernel.kind for kernel in device.trace(model, threads=1, runs=2).kernels)
        assert device.characterise(model, threads=1, runs=100).statistics.latency_p99_ms is not None
        np.save(tmp_path / "x.npy", np.ones((2, 1, 32, 32), np.float32))
        outputs = list(device.evaluate(model, {"x0": device.ship(tmp_path / "x.npy")}, threads=1))
        assert len(outputs) == 2
