"""A private sshd on loopback, which stands for a device behind ssh."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edgenas.device_profiles import DeviceProfile

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin")


class Server:
    """A private sshd, its keys, and a client configuration that knows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
            )
        public = (folder / "host.pub").read_text().split()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n")
        home = folder / "home"
        home.mkdir()
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nInclude {folder}/environment\n"
        )
        self._write_environment(EDGENAS_CACHE=str(home))
        self.config = folder / "config"
        self.config.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
            "  RequestTTY force\n  LocalForward 9 127.0.0.1:9\n"
        )
        self.profile = DeviceProfile(
            id="board",
            description="loopback",
            connection="ssh",
            ssh_config=str(self.config),
            python=sys.executable,
        )
        self.start()

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        log = (self.folder / "log").open("ab")
        assert SSHD is not None
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log, start_new_session=True
        )
        log.close()
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def _write_environment(self, **values: str) -> None:
        # The first line counts, and one line holds them all.
        pairs = " ".join(f'"{name}={value}"' for name, value in values.items())
        (self.folder / "environment").write_text(f"SetEnv {pairs}\n")

    @contextlib.contextmanager
    def set_environment(self, **values: str) -> Iterator[None]:
        """Other variables for the commands of the connections that are made inside the block."""
        usual = {"EDGENAS_CACHE": str(self.folder / "home")}
        self._restart_with({**usual, **values})
        try:
            yield
        finally:
            self._restart_with(usual)

    def _restart_with(self, environment: dict[str, str]) -> None:
        self.stop()
        self._write_environment(**environment)
        self.start()

    def cut(self) -> None:
        """Ends every connection, as a device does that loses its power; sshd's children share no group."""
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with_parent = _parent(entry)
            if with_parent == self.process.pid:
                os.kill(int(entry.parent.name), signal.SIGKILL)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
