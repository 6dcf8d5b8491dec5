"""Devices over ssh, against a real sshd on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from loopback_sshd import Server, free_port
from small_models import QUICK, executable, write_images, write_model

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import DeviceError, DeviceUnreachableError, UsageError
from edgenas.measuring import connect
from edgenas.measuring.archive import agent_archive
from edgenas.measuring.remote_probe import probe_script, read_probe
from edgenas.measuring.ssh import SshConnection
from edgenas.pipeline.device import _date
from edgenas.pipeline.device_setup import device_add, device_setup
from edgenas.workspace import Workspace


def test_everything_works_over_ssh(server: Server, tmp_path: Path) -> None:
    images = write_images(tmp_path / "x.npy", 6)
    with connect(server.profile) as device:
        assert device.environment.runtime == "onnxruntime"
        model = device.ship(write_model(tmp_path / "m.onnx"))
        (network,) = device.compare([model], **QUICK)
        assert network.statistics is not None
        assert device.trace(model, threads=1, runs=2).kernels
        assert device.characterise(model, threads=1, runs=100).statistics.runs >= 100
        outputs = list(device.evaluate(model, {"x": device.ship(tmp_path / "x.npy")}, threads=1))
        assert len(outputs) == len(images)
    digest, content = agent_archive()
    sent = server.folder / "home" / "agent" / f"agent-{digest}.pyz"
    assert sent.read_bytes() == content
    assert (server.folder / "home" / "agent" / "content" / model).exists()


def test_agent_is_sent_once_and_again_when_damaged(server: Server) -> None:
    with connect(server.profile):
        pass
    digest, content = agent_archive()
    sent = server.folder / "home" / "agent" / f"agent-{digest}.pyz"
    before = sent.stat().st_mtime_ns
    with connect(server.profile):
        assert sent.stat().st_mtime_ns == before
    sent.write_bytes(b"half")
    with connect(server.profile):
        assert sent.read_bytes() == content


def test_lost_connection_is_taken_up_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.measuring.agent._BACK_OFF_S", (0.1,) * 5)
    with connect(server.profile) as device:
        models = [device.ship(write_model(tmp_path / f"{width}.onnx", width=width)) for width in (4, 5)]
        cutter = threading.Timer(0.7, server.cut)
        cutter.start()
        networks = list(device.compare(models, threads=1, min_rounds=600, max_rounds=600))
        cutter.join()
        assert [network.error for network in networks] == [None, None]
        assert device._conversation.starts == 2


def test_evaluation_goes_on_where_it_was_cut(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.measuring.agent._BACK_OFF_S", (0.1,) * 5)
    monkeypatch.setenv("EDGENAS_TEST", "1")
    write_images(tmp_path / "x.npy", 20)
    with connect(server.profile) as device:
        wide = write_model(tmp_path / "m.onnx", width=1 << 16)  # a quarter of a MiB an item, 4 MiB a reply
        model, data = device.ship(wide), device.ship(tmp_path / "x.npy")
        whole = [outputs["y"].sum() for outputs in device.evaluate(model, {"x": data}, threads=1)]
        for taken in (0, 1):  # before it is opened, and in its midst
            stream = (outputs["y"].sum() for outputs in device.evaluate(model, {"x": data}, threads=1))
            begun = [next(stream) for _ in range(taken)]
            server.cut()
            assert [*begun, *stream] == whole


def test_a_device_that_is_lost_by_every_evaluation_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.measuring.agent._BACK_OFF_S", (0.01,) * 3)
    write_images(tmp_path / "x.npy", 3)
    with connect(server.profile) as device:
        model, data = device.ship(write_model(tmp_path / "m.onnx")), device.ship(tmp_path / "x.npy")
        ask, asked = device._conversation.ask, list[str]()

        def cut_before(method: str, *arguments: Any, **params: Any) -> Any:
            asked.append(method)
            if method == "evaluate_next":
                server.cut()
            return ask(method, *arguments, **params)

        monkeypatch.setattr(device._conversation, "ask", cut_before)
        with pytest.raises(DeviceUnreachableError, match="whenever it evaluates") as caught:
            list(device.evaluate(model, {"x": data}, threads=1))
    assert asked.count("evaluate_next") == 4
    assert "edgenas device check board" in caught.value.hint


def test_crash_is_told_from_a_lost_connection(server: Server, tmp_path: Path) -> None:
    with connect(server.profile) as device:
        model = device.ship(write_model(tmp_path / "m.onnx"))
        killer = threading.Timer(0.7, _kill_agents, (server.folder,))
        killer.start()
        (network,) = device.compare([model], threads=1, min_rounds=5000, max_rounds=5000)
        killer.join()
        assert "SIGKILL" in (network.error or "")


def _kill_agents(folder: Path) -> None:
    for number in _agents(folder):
        os.kill(number, signal.SIGKILL)


def test_remote_agent_ends_with_the_connection(server: Server) -> None:
    with connect(server.profile):
        assert _agents(server.folder)
        server.cut()
        for _ in range(100):
            if not _agents(server.folder):
                break
            time.sleep(0.05)
        assert not _agents(server.folder)


def _agents(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if len(command) > 2 and str(folder).encode() in command[1] and b"python" in command[0]:
            found.append(int(entry.parent.name))
    return found


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ("unknown key", "host key is known", "accept it once by hand: ssh board"),
        ("unknown key, unchecked", "host key is known", "accept it once by hand: ssh board"),
        ("unknown key, accepted when new", "host key is known", "accept it once by hand: ssh board"),
        ("user", "Permission denied", "ssh-copy-id"),
        ("port", "refused", "ssh server"),
        ("name", "resolve", "device add board --host"),
    ],
)
def test_unreachable_devices_say_why(
    server: Server, tmp_path: Path, change: str, message: str, hint: str
) -> None:
    text = server.config.read_text()
    if change.startswith("unknown key"):
        checking = "no" if "unchecked" in change else "accept-new" if "accepted" in change else "ask"
        text = text.replace(f"{server.folder}/known_hosts", str(tmp_path / "nothing"))
        text += f"  StrictHostKeyChecking {checking}\n"
    elif change == "user":
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True
        )
        text = text.replace(f"{server.folder}/user", str(tmp_path / "other"))
    elif change == "port":
        text = text.replace(str(server.port), str(free_port()))
    else:
        text = text.replace("127.0.0.1\n  Port", "no-such-host.invalid\n  Port")
    config = tmp_path / "config"
    config.write_text(text)
    profile = msgspec.structs.replace(server.profile, ssh_config=str(config))
    with pytest.raises(DeviceUnreachableError, match=message) as caught, connect(profile):
        pass
    assert "board" in caught.value.message
    assert hint in caught.value.hint
    assert not (tmp_path / "nothing").exists()


def test_an_ssh_that_hangs_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "ssh", "#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("_COMMAND_S", "_CONTROL_S"):
        monkeypatch.setattr(f"edgenas.measuring.ssh.{name}", 0.2)
    profile = DeviceProfile(id="board", description="hangs", connection="ssh")
    connection = SshConnection(profile)
    folder = connection._control.parent
    for _ in range(2):
        with pytest.raises(DeviceUnreachableError, match=r"'board' cannot be reached.*takes longer than"):
            connection.run("true")
        connection._control.touch()  # now it is the master that hangs
    connection.close()
    assert not folder.exists()


def test_missing_runtime_names_the_setup(server: Server, tmp_path: Path) -> None:
    python = executable(
        tmp_path / "python",
        f"""#!{sys.executable}
import sys, runpy
sys.modules["onnxruntime"] = None
sys.argv = sys.argv[1:]
if sys.argv[0] == "-c":
    exec(sys.argv[1])
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
""",
    )
    profile = msgspec.structs.replace(server.profile, python=python)
    with pytest.raises(DeviceUnreachableError, match="cannot be imported") as caught, connect(profile):
        pass
    assert "edgenas device setup board" in caught.value.hint


@pytest.mark.parametrize(
    ("pythons", "message"),
    [([], "no Python 3.9"), (["3.7 64 /usr/bin/python3"], "3.7"), (["3.11 32 /usr/bin/python3"], "32-bit")],
)
def test_unusable_pythons(pythons: list[str], message: str) -> None:
    found = "\n".join(f"python={entry}" for entry in pythons)
    output = f"motd\nedgenas-probe-1\nfolder=/x\nsystem=Linux aarch64\nagent=0\n{found}\nedgenas-probe-1\n"
    with pytest.raises(DeviceUnreachableError, match=message):
        read_probe(output, "board")


def test_probe_runs_in_a_plain_shell(tmp_path: Path) -> None:
    environment = {"EDGENAS_CACHE": str(tmp_path), "PATH": os.environ["PATH"]}
    script = probe_script("agent.pyz", None)
    done = subprocess.run(["sh"], input=script, env=environment, capture_output=True, check=True)
    place = read_probe(done.stdout.decode(), "board")
    assert place.folder == f"{tmp_path}/agent"
    assert place.archive_bytes == 0
    with pytest.raises(DeviceUnreachableError, match="does not run commands"):
        read_probe("Last login: never", "board")


def test_add_names_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_CONFIG", str(tmp_path / "configuration"))
    workspace = Workspace(tmp_path)
    added = device_add("kitchen", profile="rpi4", host="pi@kitchen.local", workspace=workspace)
    assert load_profile("kitchen", workspace) == added
    assert added.facts == load_profile("rpi4", workspace).facts
    assert device_add("rpi5", host="five", workspace=workspace).threads == 4
    other = device_add("kitchen-openvino", profile="rpi4", host="pi", runtime="openvino", workspace=workspace)
    assert load_profile("kitchen-openvino", workspace).runtime == other.runtime == "openvino"
    with pytest.raises(UsageError, match="runtime 'tflite'"):
        device_add("kitchen", profile="rpi4", host="pi", runtime="tflite", workspace=workspace)
    with pytest.raises(UsageError, match="cannot be a device"):
        device_add("rpi4", host="-oProxyCommand=true", workspace=workspace)
    with pytest.raises(UsageError, match="name"):
        device_add("../rpi4", profile="rpi4", host="pi", workspace=workspace)
    with pytest.raises(UsageError, match="not a device that one connects to"):
        device_add("mine", profile="local", host="pi", workspace=workspace)
    for taken in ("local", "virtual-a72"):
        with pytest.raises(UsageError, match=f"'{taken}' is the name of"):
            device_add(taken, profile="rpi4", host="pi", workspace=workspace)
    assert load_profile("local", workspace).connection == "local"


@pytest.mark.slow
@pytest.mark.parametrize("internet", [True, False])
def test_setup_installs_and_removes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, internet: bool
) -> None:
    """With the device's own pip, and with wheels that are fetched here."""
    folder = tmp_path / "device_profiles"
    folder.mkdir()
    (folder / "board.toml").write_text(
        f'description = "loopback"\nconnection = "ssh"\nssh_config = "{server.config}"\n'
    )
    if not internet:
        monkeypatch.setattr("edgenas.measuring.installing._installed_there", lambda *arguments: False)
    workspace = Workspace(tmp_path)
    done = device_setup("board", workspace=workspace)
    assert done.runtime_version
    with connect(load_profile("board", workspace)) as device:
        assert device.environment.runtime_version == done.runtime_version
        model = device.ship(write_model(tmp_path / "m.onnx"))
        assert device.trace(model, threads=1, runs=1).kernels
    assert device_setup("board", remove=True, workspace=workspace).removed
    assert not (server.folder / "home" / "venv").exists()


# --- faults ----------------------------------------------------------------------------------------


def test_master_of_a_killed_program_ends_by_itself(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.measuring.ssh._IDLE_S", 2)
    connection = SshConnection(server.profile)
    assert connection.run("echo here").strip() == "here"
    socket = connection._control
    assert socket.exists()
    for _ in range(600):
        if not socket.exists():
            break
        time.sleep(0.05)
    assert not socket.exists()
    connection.close()


def test_device_that_reboots_is_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.measuring.agent._BACK_OFF_S", (0.1,) * 100)
    with connect(server.profile) as device:
        models = [device.ship(write_model(tmp_path / f"{width}.onnx", width=width)) for width in (4, 5)]

        def reboot() -> None:
            server.cut()
            server.stop()
            time.sleep(1)
            shutil.rmtree(server.folder / "home")  # a disk in memory, as the virtual boards have
            (server.folder / "home").mkdir()
            server.start()

        rebooting = threading.Timer(0.5, reboot)
        rebooting.start()
        networks = list(device.compare(models, threads=1, min_rounds=600, max_rounds=600))
        rebooting.join()
        assert [network.error for network in networks] == [None, None]


_ANOTHER_VERSION = """#!{python}
import sys, runpy, pathlib
version = pathlib.Path({file!r}).read_text()
if version:
    import onnxruntime
    onnxruntime.__version__ = version
sys.argv = sys.argv[1:]
if sys.argv[0] == "-c":
    exec(sys.argv[1])
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _with_version(server: Server, folder: Path, version: str) -> tuple[DeviceProfile, Path]:
    file = folder / "version"
    file.write_text(version)
    text = _ANOTHER_VERSION.format(python=sys.executable, file=str(file))
    return msgspec.structs.replace(server.profile, python=executable(folder / "python", text)), file


def test_device_that_comes_back_with_another_runtime_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.measuring.agent._BACK_OFF_S", (0.1,) * 5)
    profile, file = _with_version(server, tmp_path, "1.99.0")
    with connect(profile) as device:
        model = device.ship(write_model(tmp_path / "m.onnx"))
        file.write_text("1.98.0")
        server.cut()
        with pytest.raises(DeviceError, match="'board' came back as another device") as caught:
            device.trace(model, threads=1, runs=1)
        file.write_text("1.99.0")  # and now the old one again
        write_images(tmp_path / "x.npy", 3)
        stream = device.evaluate(model, {"x": device.ship(tmp_path / "x.npy")}, threads=1)
        server.cut()
        file.write_text("1.98.0")
        with pytest.raises(DeviceError, match="another device"):
            list(stream)
    assert "runtime_version 1.98.0 instead of 1.99.0" in caught.value.message
    assert "the same command" in caught.value.hint


def test_runtime_that_is_too_old_names_the_setup(server: Server, tmp_path: Path) -> None:
    profile, _ = _with_version(server, tmp_path, "1.15.1")
    with pytest.raises(DeviceUnreachableError, match="is too old") as caught, connect(profile):
        pass
    assert "onnxruntime 1.15.1" in caught.value.message
    assert "edgenas device setup board" in caught.value.hint


@pytest.mark.parametrize(
    ("python", "message", "hint"),
    [
        (None, "'board' has no Python 3.9 or later; found: none", "install python3 there"),
        ('echo "3.7 64"', "'board' has no Python 3.9 or later; found: 3.7", "install python3 there"),
        ('echo "3.11 32"', "'board' has a 32-bit user space", "64-bit system"),
    ],
)
def test_device_without_a_usable_python(
    server: Server, tmp_path: Path, python: str | None, message: str, hint: str
) -> None:
    """What stands in the device's PATH decides; the probe runs there for real."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "mkdir", "uname", "wc", "cat", "env"):
        (folder / tool).symlink_to(shutil.which(tool) or "")
    if python is not None:
        executable(folder / "python3", f"#!/bin/sh\n{python}\n")
    profile = msgspec.structs.replace(server.profile, python=None)
    refused = pytest.raises(DeviceUnreachableError, match=message)
    with server.set_environment(PATH=str(folder), HOME=str(tmp_path)), refused as caught, connect(profile):
        pass
    assert hint in caught.value.hint


@pytest.mark.parametrize(("size_kib", "message"), [(16, "No space left"), (1024, "the disk is full")])
def test_full_disk_says_what_to_do(server: Server, tmp_path: Path, size_kib: int, message: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        refused = pytest.raises(DeviceError, match=message)
        small = server.set_environment(EDGENAS_CACHE=str(disk))
        with small, refused as caught, connect(server.profile) as device:
            device.ship(write_model(tmp_path / "m.onnx"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert "board" in caught.value.message
    assert "free some space" in caught.value.hint


def test_wrong_clock_is_a_finding(server: Server, tmp_path: Path) -> None:
    text = f"""#!{sys.executable}
import sys, runpy, time
time.time = lambda: 86400.0
sys.argv = sys.argv[1:]
if sys.argv[0] == "-c":
    exec(sys.argv[1])
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
    with connect(
        msgspec.structs.replace(server.profile, python=executable(tmp_path / "python", text))
    ) as device:
        finding = _date(device.environment)
    assert finding.verdict == "warning"
    assert finding.value.startswith("1970-01-02 00:00, ")
    assert "timedatectl" in finding.advice


def test_a_device_that_prints_without_end_fills_no_memory(server: Server) -> None:
    connection = SshConnection(server.profile)
    with contextlib.closing(connection), pytest.raises(DeviceUnreachableError, match="more than 1 MiB"):
        connection.run("yes")


def test_what_is_given_to_a_command_arrives_whatever_its_size(server: Server) -> None:
    given = os.urandom(3 << 20)
    with contextlib.closing(SshConnection(server.profile)) as connection:
        assert connection.run("sha256sum", given=given).split()[0] == hashlib.sha256(given).hexdigest()
        assert connection.run("head -c 3", given=b"abc" + given) == "abc"  # nobody reads the rest
        with pytest.raises(DeviceUnreachableError, match="takes longer than 1 s"):
            connection.run("cat; sleep 60", timeout_s=1.0)
        with pytest.raises(DeviceUnreachableError, match="takes longer than 1 s"):
            connection.run("exec >&- 2>&-; sleep 60", timeout_s=1.0)


@pytest.mark.parametrize(
    ("command", "said"),
    [("echo first >&2; echo second >&2; exit 3", "second"), ("exit 7", "it ended with code 7")],
)
def test_a_command_that_fails_does_not_look_like_a_lost_device(
    server: Server, command: str, said: str
) -> None:
    connection = SshConnection(server.profile)
    with contextlib.closing(connection), pytest.raises(DeviceUnreachableError) as caught:
        connection.run(command)
    assert caught.value.message == f"'board' failed at '{command}': {said}"
