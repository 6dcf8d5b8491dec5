"""The stages ``device list``, ``device show`` and ``device check``."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
import pytest
from test_latency_tables import ENVIRONMENT

from edgenas.agent.environment import usable_cores
from edgenas.errors import DeviceUnreachableError, UnknownNameError
from edgenas.pipeline.device import _throttling, _under_voltage, device_check, device_list, device_show
from edgenas.pipeline.device_probes import write_probes
from edgenas.records import DeviceCheck
from edgenas.workspace import Workspace


def test_list_and_show_know_the_workspace(tmp_path: Path) -> None:
    folder = tmp_path / "device_profiles"
    folder.mkdir()
    (folder / "bench.toml").write_text('description = "On the bench"\nconnection = "ssh"\nhost = "bench"\n')
    workspace = Workspace(tmp_path)
    listed = {summary.id: summary for summary in device_list(workspace=workspace)}
    assert listed["bench"].host == "bench"
    assert device_show("bench", workspace=workspace).description == "On the bench"
    with pytest.raises(UnknownNameError):
        device_show("nothing", workspace=workspace)


def test_probes_are_valid_and_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    paths, again = write_probes(tmp_path), write_probes(tmp_path / "again")
    assert len(paths) == 4
    for path, same in zip(paths, again, strict=True):
        onnx.checker.check_model(str(path), full_check=True)
        assert path.read_bytes() == same.read_bytes()


@pytest.mark.parametrize("device", ["local", "local-openvino"])
def test_check_examines_the_device(device: str, tmp_path: Path) -> None:
    if device == "local-openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    check = device_check(device, threads=1, workspace=Workspace(tmp_path))
    found = {finding.name: finding for finding in check.findings}
    assert {"processor", "runtime", "threads", "governor", "clock", "temperature", "throttling",
            "under-voltage", "load", "free memory", "noise floor"} <= set(found)  # fmt: skip
    assert found["threads"].value.startswith("1 of ")
    assert 0 <= check.noise_floor < 10
    assert msgspec.json.decode(check.to_json(), type=DeviceCheck) == check
    assert all(finding.advice for finding in check.findings if finding.verdict in ("warning", "problem"))


def test_too_many_threads_are_warned_about(tmp_path: Path) -> None:
    threads = usable_cores() + 1
    check = device_check("local", threads=threads, workspace=Workspace(tmp_path))
    (finding,) = (finding for finding in check.findings if finding.name == "threads")
    assert finding.verdict == "warning"


@pytest.mark.parametrize(
    ("flags", "verdicts"),
    [
        ({"throttled": False, "under_voltage": True}, ("ok", "problem")),
        ({"throttled": True, "under_voltage": False}, ("problem", "ok")),
        ({"throttled_before": True, "throttled": False, "under_voltage": False}, ("warning", "ok")),
        ({"under_voltage_before": True, "throttled": False, "under_voltage": False}, ("ok", "warning")),
        ({}, ("unknown", "unknown")),
    ],
)
def test_a_weak_supply_is_told_from_heat(flags: dict[str, bool], verdicts: tuple[str, str]) -> None:
    environment = msgspec.structs.replace(ENVIRONMENT, **flags)
    found = [_throttling(environment), _under_voltage(environment)]
    assert [one.name for one in found] == ["throttling", "under-voltage"]
    assert tuple(one.verdict for one in found) == verdicts
    assert all(one.advice for one in found if one.verdict in ("warning", "problem"))


def test_check_of_a_broken_device_is_one_error(tmp_path: Path) -> None:
    folder = tmp_path / "device_profiles"
    folder.mkdir()
    (folder / "broken.toml").write_text(
        'description = "No Python"\nconnection = "local"\npython = "/no/such/python"\n'
    )
    with pytest.raises(DeviceUnreachableError, match="broken"):
        device_check("broken", workspace=Workspace(tmp_path))
