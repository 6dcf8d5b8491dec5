"""A device behind ssh, through the OpenSSH client.

The client honours everything in ~/.ssh/config; host keys are always checked and nothing is ever
asked. One master connection carries the commands and the agent.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import DeviceUnreachableError
from edgenas.measuring.archive import agent_archive
from edgenas.measuring.command import MOST_BYTES, CommandFloodedError, run_limited
from edgenas.measuring.connection import PINNED_ENVIRONMENT, Connection, End
from edgenas.measuring.remote_probe import RemotePlace, probe_script, read_probe

_OPTIONS = (
    "-T",
    "-o", "BatchMode=yes",
    # Whatever ~/.ssh/config says: a model goes to no device whose key nobody has looked at.
    "-o", "StrictHostKeyChecking=yes",
    "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=15",
    "-o", "ServerAliveCountMax=3",
    # What an entry of ~/.ssh/config may want for a person at a terminal would disturb the protocol.
    "-o", "RemoteCommand=none",
    "-o", "RequestTTY=no",
    "-o", "ClearAllForwardings=yes",
    "-o", "ForwardAgent=no",
    "-o", "ForwardX11=no",
    "-o", "PermitLocalCommand=no",
    "-o", "LogLevel=ERROR",
)  # fmt: skip
_COMMAND_S, _CONTROL_S = 120.0, 10.0
# A master that nobody uses ends by itself: that of a program which was killed cannot be told to.
_IDLE_S = 120
_TRANSPORT_FAILED = 255
# ssh itself ends with 255 when the remote process is killed by a signal; a shell in between turns
# that into 128 + the signal, and 255 means the connection again.
_KEEP_STATUS = """sh -c '"$@"; exit $?' sh """

_HINTS = (
    ("Permission denied", "let the device accept your key: ssh-copy-id {host}"),
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "was the device set up anew? check, then: ssh-keygen -R {host}",
    ),
    ("host key is known for", "look at the device's key and accept it once by hand: ssh {host}"),
    ("Host key verification failed", "look at the device's key and accept it once by hand: ssh {host}"),
    ("Could not resolve", "is that spelled right? set it with: edgenas device add {device} --host USER@HOST"),
    ("Connection refused", "is the ssh server of the device running?"),
    ("timed out", "is the device on and in this network?"),
    ("No route to host", "is the device on and in this network?"),
    ("Network is unreachable", "is this machine in the device's network?"),
    ("cannot be imported", "install what the agent needs: edgenas device setup {device}"),
    ("No module named", "install what the agent needs: edgenas device setup {device}"),
    ("is too old", "install what the agent needs: edgenas device setup {device}"),
    ("No space left", "free some space on the device, or: edgenas device setup {device} --remove"),
    ("disk is full", "free some space on the device, or: edgenas device setup {device} --remove"),
    ("stays at", "cool it, or raise temperature_limit_c in its profile"),
)


class SshConnection(Connection):
    """Runs the agent on another machine."""

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        self.host = profile.host or profile.id
        # Short, because the path of a socket has about 100 characters.
        self._sockets = tempfile.TemporaryDirectory(prefix="edgenas-ssh-", dir=_short_folder())
        self._control = Path(self._sockets.name) / "c"
        self._shared = True
        self._place: RemotePlace | None = None

    def start(self) -> subprocess.Popen[bytes]:
        self._ensure_master()
        place = self._prepared()
        digest, _ = agent_archive()
        pinned = [f"{name}={value}" for name, value in PINNED_ENVIRONMENT.items()]
        archive = f"{place.folder}/agent-{digest}.pyz"
        command = _KEEP_STATUS + shlex.join(["env", *pinned, place.python, archive, place.folder])
        return subprocess.Popen(
            [*self._ssh(), self.host, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, command: str, *, given: bytes = b"", timeout_s: float = _COMMAND_S) -> str:
        """What a command on the device prints; ``given`` is its stdin.

        Raises:
            DeviceUnreachableError: the connection or the command failed.
        """
        self._ensure_master()
        with self._in_time(command, timeout_s):
            done = run_limited([*self._ssh(), self.host, command], given=given, timeout_s=timeout_s)
        said = done.stderr.decode("utf-8", "replace")
        if done.returncode and self.end_of(done.returncode).lost:
            raise self._unreachable(said)
        if done.returncode:
            raise self._failed(command, said, done.returncode)
        return done.stdout.decode("utf-8", "replace")

    def end_of(self, returncode: int) -> End:
        if returncode == _TRANSPORT_FAILED or returncode < 0:
            return End(lost=True, reason=f"the connection to '{self.profile.id}' was lost")
        if returncode <= 128:
            return End(lost=False, reason=f"the agent ended with code {returncode}")
        with contextlib.suppress(ValueError):
            name = signal.Signals(returncode - 128).name
            memory = ", which is what a system short of memory does" if name == "SIGKILL" else ""
            return End(lost=False, reason=f"the agent was ended by {name}{memory}")
        return End(lost=False, reason=f"the agent ended with code {returncode}")

    def hint(self, stderr: str) -> str:
        for sign, advice in _HINTS:
            if sign in stderr:
                return advice.format(host=self.host, device=self.profile.id)
        return f"does this work? ssh {self.host} true"

    def close(self) -> None:
        try:
            if self._control.exists():
                self._control_command("exit")
        except DeviceUnreachableError:
            pass  # a master that does not answer ends by itself
        finally:
            self._sockets.cleanup()

    def place(self, *, own_environment: bool = True) -> RemotePlace:
        """Where things are on the device.

        Args:
            own_environment: prefers the Python that ``device setup`` installed.

        Raises:
            DeviceUnreachableError: the device cannot be reached or has no usable Python.
        """
        name = f"agent-{agent_archive()[0]}.pyz"
        script = probe_script(name, self.profile.python, own_environment=own_environment)
        return read_probe(self.run("sh", given=script), self.profile.id)

    def _prepared(self) -> RemotePlace:
        """Looks at the device once, and puts the agent there where it is missing."""
        if self._place is None:
            digest, content = agent_archive()
            name, place = f"agent-{digest}.pyz", self.place()
            if place.archive_bytes != len(content):
                temporary, final = (shlex.quote(f"{place.folder}/{n}") for n in (f".{name}.part", name))
                self.run(f"cat > {temporary} && mv {temporary} {final}", given=content)
            self._place = place
        return self._place

    def _ensure_master(self) -> None:
        """A master connection in the background; without one every command connects by itself.

        Raises:
            DeviceUnreachableError: the device cannot be reached.
        """
        if not self._shared or (self._control.exists() and self._control_command("check")):
            return
        # The device may have been started anew, with nothing of what was there.
        self._place = None
        # Old clients keep a captured stderr open for as long as the master lives, so it gets a file.
        log = Path(self._sockets.name) / "master.log"
        with log.open("wb") as stderr, self._in_time("connecting", _COMMAND_S):
            done = subprocess.run(
                [*self._ssh(), "-M", "-N", "-f", "-o", f"ControlPersist={_IDLE_S}", self.host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=_COMMAND_S,
                check=False,
            )
        said = log.read_text("utf-8", "replace")
        if done.returncode and any(
            sign in said for sign in ("ControlSocket", "ControlPath", "muxserver", "mux_")
        ):
            self._shared = False
        elif done.returncode:
            raise self._unreachable(said)

    def _control_command(self, command: str) -> bool:
        with self._in_time(f"ssh -O {command}", _CONTROL_S):
            done = subprocess.run(
                [*self._ssh(), "-O", command, self.host], capture_output=True, timeout=_CONTROL_S, check=False
            )
        return done.returncode == 0

    @contextlib.contextmanager
    def _in_time(self, what: str, limit_s: float) -> Iterator[None]:
        try:
            yield
        except subprocess.TimeoutExpired:
            raise self._unreachable(f"'{what[:60]}' takes longer than {limit_s:.0f} s") from None
        except CommandFloodedError:
            raise self._failed(what, f"it prints more than {MOST_BYTES >> 20} MiB", 0) from None

    def _ssh(self) -> Sequence[str]:
        shared = ("-o", "ControlMaster=no", "-S", str(self._control)) if self._shared else ("-S", "none")
        named = ("-F", str(Path(self.profile.ssh_config).expanduser())) if self.profile.ssh_config else ()
        # The first value of an option counts; an emulated processor takes its time to exchange keys.
        slow = ("-o", "ConnectTimeout=60") if self.profile.virtual else ()
        return ("ssh", *named, *slow, *_OPTIONS, *shared)

    def _unreachable(self, said: str) -> DeviceUnreachableError:
        shown = _telling_line(said) or "ssh gives no reason"
        return DeviceUnreachableError(
            f"'{self.profile.id}' cannot be reached as '{self.host}': {shown}", hint=self.hint(said)
        )

    def _failed(self, command: str, said: str, code: int) -> DeviceUnreachableError:
        shown = _telling_line(said) or f"it ended with code {code}"
        return DeviceUnreachableError(
            f"'{self.profile.id}' failed at '{command[:60]}': {shown}", hint=self.hint(said)
        )


def _telling_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # A changed host key fills a screen; what matters is not on its last line.
    known = (line for line in lines if any(sign in line for sign, _ in _HINTS))
    return next(known, lines[-1] if lines else "")[:300]


def _short_folder() -> str | None:
    """The system's folder where it exists; the user's own temporary folder may have too long a path."""
    system = Path("/tmp")  # noqa: S108 - a private folder is made inside
    return str(system) if system.is_dir() else None
