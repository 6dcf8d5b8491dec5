"""Several devices side by side: each into its own table, and one that fails is told at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import write_model

from edgenas.cli import invoke
from edgenas.errors import DeviceError, UnknownNameError
from edgenas.pipeline.profile_several import profile_several
from edgenas.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two devices that are this machine, and one that nobody answers for."""
    profiles = tmp_path / "device_profiles"
    profiles.mkdir()
    for name in ("left", "right"):
        (profiles / f"{name}.toml").write_text(f'description = "{name}"\nconnection = "local"\n')
    (profiles / "gone.toml").write_text(
        'description = "gone"\nconnection = "ssh"\nhost = "no-such-host.invalid"\n'
    )
    write_model(tmp_path / "m.onnx", width=16, side=16)
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


def test_each_device_has_its_own_table(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["profile", "--device", "left", "--device", "right", "--device", "left", "--model", "m.onnx"]
    assert invoke([*command, "--threads", "1", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["device"] for result in results] == ["left", "right"]
    for result in results:
        assert result["measured_networks"] == 1
        assert Path(result["table"]) == workspace.table_path(result["device"])


def test_the_others_are_measured_where_one_is_gone(workspace: Workspace) -> None:
    with pytest.raises(DeviceError, match="1 of 2 devices are not profiled: 'gone'") as caught:
        profile_several(("gone", "left"), model=["m.onnx"], threads=1, workspace=workspace)
    assert caught.value.hint
    assert workspace.table_path("left").exists()
    assert not workspace.table_path("gone").exists()


def test_nothing_is_measured_where_a_name_is_wrong(workspace: Workspace) -> None:
    with pytest.raises(UnknownNameError, match="rihgt"):
        profile_several(("left", "rihgt"), model=["m.onnx"], workspace=workspace)
    assert not workspace.table_path("left").exists()
