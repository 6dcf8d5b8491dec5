"""Virtual ARM boards: a Debian arm64 system under qemu whose clock counts instructions.

Its milliseconds are a property of the real ARM kernels, the same on every host and at every load;
they are never those of a real board.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import DeviceError, DeviceUnreachableError, UsageError
from edgenas.files import write_atomically
from edgenas.progress import say, track
from edgenas.workspace import cache_folder

_QEMU = "qemu-system-aarch64"
_BUILD_TOOLS = ("mmdebstrap", "cpio", "depmod", "ssh-keygen")
_SOURCES = Path(__file__).parent / "board"
_MEMORY_MIB = 1536
_START_S = 600.0
_STOP_S = 10.0
_READY = "Server listening"


class _Running(msgspec.Struct):
    """What is known of a board that was started."""

    pid: int
    port: int


class VirtualBoard:
    """One board; it runs in the background until it is stopped.

    Raises:
        UsageError: the profile is not that of a virtual board.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        if not profile.virtual:
            raise UsageError(
                f"'{profile.id}' is not a virtual board; it is started by its own switch",
                hint="virtual boards: virtual-a72, virtual-a76",
            )
        self._profile = profile
        self._folder = cache_folder() / "boards" / profile.id
        self._state = self._folder / "running.json"
        self._console = self._folder / "console.log"
        self._log = self._folder / "qemu.log"
        self.ssh_config = self._folder / "ssh_config"

    @property
    def process(self) -> int | None:
        """The process of the running board; None where it does not run."""
        try:
            state = msgspec.json.decode(self._state.read_bytes(), type=_Running)
            command = Path(f"/proc/{state.pid}/cmdline").read_bytes()
        except (OSError, msgspec.DecodeError):
            return None
        # The number may belong to another process by now.
        return state.pid if str(self._folder).encode() in command else None

    def start(self) -> int:
        """Builds the system where there is none, starts the board and waits until its sshd listens.

        Returns:
            Its process; that of the running board where it was started before.

        Raises:
            DeviceError: a tool is missing, or the board does not come up.
        """
        with _alone(f"{self._profile.id}.lock"):
            running = self.process
            if running is None:
                self._check_qemu()
                image = ready_image()
                port = _free_port()
                self._write_ssh_config(image, port)
                running = self._boot(image, port)
            # Whoever started it may have been interrupted before it was up.
            self._wait_until_up(running)
            return running

    def stop(self) -> bool:
        """Ends the board; false where it did not run."""
        running = self.process
        if running is not None:
            os.kill(running, signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            while _is_alive(running):
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(running, signal.SIGKILL)
                time.sleep(0.05)
        self._state.unlink(missing_ok=True)
        return running is not None

    def running_config(self) -> Path:
        """The ssh configuration by which the board is reached.

        Raises:
            DeviceUnreachableError: it does not run.
        """
        if self.process is None:
            raise DeviceUnreachableError(
                f"the virtual board '{self._profile.id}' does not run",
                hint=f"edgenas device start {self._profile.id}",
            )
        return self.ssh_config

    def _check_qemu(self) -> None:
        if shutil.which(_QEMU) is None:
            raise DeviceError(
                f"'{self._profile.id}' needs {_QEMU}, which is not installed",
                hint="on Debian or Ubuntu: apt-get install qemu-system-arm",
            )

    def _boot(self, image: Path, port: int) -> int:
        self._console.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                self._command(image, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # The process goes on without this one; nobody here waits for its end.
        process.returncode = 0
        write_atomically(self._state, msgspec.json.encode(_Running(process.pid, port)))
        return process.pid

    def _wait_until_up(self, process: int) -> None:
        deadline = time.monotonic() + _START_S
        with track(f"Starting {self._profile.id}") if not self._is_up() else contextlib.nullcontext():
            while not self._is_up():
                if not _is_alive(process) or time.monotonic() > deadline:
                    self.stop()
                    said = self._log.read_text("utf-8", "replace").strip()
                    raise DeviceError(
                        f"'{self._profile.id}' did not come up: {said[-300:] or 'it says nothing'}",
                        hint=f"its console: {self._console}",
                    )
                time.sleep(0.2)

    def _is_up(self) -> bool:
        return self._console.exists() and _READY in self._console.read_text("utf-8", "replace")

    def _command(self, image: Path, port: int) -> list[str]:
        return [
            _QEMU, "-machine", "virt", "-cpu", str(self._profile.cpu), "-m", str(_MEMORY_MIB), "-smp", "1",
            # One nanosecond of guest time for each instruction, whatever the host is doing.
            "-icount", "shift=0", "-nographic", "-nodefaults", "-serial", f"file:{self._console}",
            "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd"),
            # Addresses that are drawn anew for every process would cost now more instructions, now fewer.
            "-append", "console=ttyAMA0 rdinit=/init loglevel=4 norandmaps",
            "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
            "-device", "virtio-net-pci,netdev=net,romfile=",
        ]  # fmt: skip

    def _write_ssh_config(self, image: Path, port: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        key = (image / "host_key.pub").read_text().split()
        known_hosts = self._folder / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
        self.ssh_config.write_text(
            f'Host *\n  HostName 127.0.0.1\n  Port {port}\n  User pi\n  IdentityFile "{_user_key()}"\n'
            f'  IdentitiesOnly yes\n  UserKnownHostsFile "{known_hosts}"\n  StrictHostKeyChecking yes\n'
        )


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Two commands must not build or start the same at once."""
    boards = cache_folder() / "boards"
    boards.mkdir(parents=True, exist_ok=True)
    with (boards / name).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ready_image() -> Path:
    """The folder with kernel, system and host key; built when the sources changed or nothing is there.

    Raises:
        DeviceError: a tool is missing, or the build failed.
    """
    digest = hashlib.sha256()
    for source in sorted(_SOURCES.iterdir()):
        if source.is_file():
            digest.update(source.read_bytes())
    image = cache_folder() / "boards" / f"image-{digest.hexdigest()[:16]}"
    with _alone("image.lock"):
        if not image.is_dir():
            _check_build_tools()
            say("building the virtual boards' system; this takes a minute")
            with tempfile.TemporaryDirectory(prefix="building-", dir=image.parent) as folder:
                _build(Path(folder) / "image")
                (Path(folder) / "image").rename(image)
    return image


def _build(folder: Path) -> None:
    command = ["bash", str(_SOURCES / "build.sh"), str(folder), f"{_user_key()}.pub", sys.executable]
    with track("Building the system"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise DeviceError(f"the virtual boards' system cannot be built: {' / '.join(lines[-3:])[:500]}")


def _check_build_tools() -> None:
    missing = [tool for tool in _BUILD_TOOLS if shutil.which(tool) is None]
    if missing:
        raise DeviceError(
            f"building the virtual boards' system needs {', '.join(missing)}, not installed here",
            hint="on Debian or Ubuntu: apt-get install mmdebstrap cpio kmod openssh-client",
        )
    if os.geteuid() != 0:
        raise DeviceError(
            "building the virtual boards' system needs root; running them does not",
            hint=f"build it once as root with EDGENAS_CACHE={cache_folder()}",
        )


def _user_key() -> Path:
    """The private key that the boards accept; made when it is first needed."""
    key = cache_folder() / "boards" / "id_ed25519"
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgenas", "-f", str(key)], check=True
        )
    return key


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_alive(process: int) -> bool:
    """Whether a process runs; the end of a child is taken, without which it would stay in the list.

    Its command line is no sign: for a moment after its start it is empty.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)
    return Path(f"/proc/{process}").exists()
