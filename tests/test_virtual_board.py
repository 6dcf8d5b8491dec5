"""Virtual boards: what goes wrong without one, and a real one where qemu is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from board_fixture import DEVICE, board_here
from small_models import QUICK, write_model

from edgenas.device_profiles import load_profile
from edgenas.errors import DeviceError, DeviceUnreachableError, UsageError
from edgenas.measuring import connect
from edgenas.measuring.virtual_board import VirtualBoard
from edgenas.pipeline.device_setup import device_start, device_stop
from edgenas.workspace import Workspace


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGENAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_board_that_does_not_run_says_how_to_start_it(own_cache: Path, tmp_path: Path) -> None:
    profile = load_profile("virtual-a72", Workspace(tmp_path))
    with pytest.raises(DeviceUnreachableError, match="does not run") as caught, connect(profile):
        pass
    assert caught.value.hint == "edgenas device start virtual-a72"
    assert not device_stop("virtual-a72", workspace=Workspace(tmp_path)).running


def test_state_of_another_process_is_not_believed(own_cache: Path, tmp_path: Path) -> None:
    folder = own_cache / "boards" / "virtual-a72"
    folder.mkdir(parents=True)
    (folder / "running.json").write_text(f'{{"pid": {os.getpid()}, "port": 22}}')
    board = VirtualBoard(load_profile("virtual-a72", Workspace(tmp_path)))
    assert board.process is None
    assert board.stop() is False
    (folder / "running.json").write_text("nonsense")
    assert board.process is None


def test_boards_may_live_in_a_folder_with_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_CACHE", str(tmp_path / "my cache"))
    board = VirtualBoard(load_profile("virtual-a72", Workspace(tmp_path)))
    (tmp_path / "host_key.pub").write_text("ssh-ed25519 AAAA\n")
    board._write_ssh_config(tmp_path, 2222)
    command = ["ssh", "-G", "-F", str(board.ssh_config), "board"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    folder = tmp_path / "my cache" / "boards"
    assert f"identityfile {folder / 'id_ed25519'}" in said
    assert f"userknownhostsfile {folder / 'virtual-a72' / 'known_hosts'}" in said.replace('"', "")


def test_missing_tools_are_named(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="qemu-system-aarch64") as caught:
        device_start("virtual-a72", workspace=Workspace(tmp_path))
    assert "apt-get install" in caught.value.hint
    (tmp_path / "qemu-system-aarch64").touch(mode=0o755)
    with pytest.raises(DeviceError, match="mmdebstrap"):
        device_start("virtual-a72", workspace=Workspace(tmp_path))


@pytest.mark.parametrize("device", ["local", "rpi4"])
def test_other_devices_have_a_switch_of_their_own(own_cache: Path, tmp_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match="not a virtual board"):
        device_start(device, workspace=Workspace(tmp_path))


@pytest.mark.slow
def test_board_repeats_itself(tmp_path: Path) -> None:
    with board_here(tmp_path / "cache") as board:
        assert board.start() == board.process  # started twice is started once
        profile, found = load_profile(DEVICE, Workspace(tmp_path)), []
        files = [write_model(tmp_path / f"{width}.onnx", width=width, side=64) for width in (64, 32, 16)]
        for number in (1, -1):
            with connect(profile) as agent:
                assert agent.environment.virtual_clock
                assert agent.environment.architecture == "aarch64"
                models = agent.ship_all(files)[::number]  # the order changes nothing
                found.append({one.model_sha256: one.statistics for one in agent.compare(models, **QUICK)})
        for model, statistics in found[0].items():
            again = found[1][model]
            assert statistics is not None and again is not None
            assert again.latency_ms == pytest.approx(statistics.latency_ms, rel=0.001)
        assert board.stop() is True
        assert board.stop() is False
