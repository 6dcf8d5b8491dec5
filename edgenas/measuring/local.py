"""This machine as a device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from edgenas.errors import DeviceUnreachableError
from edgenas.measuring.archive import write_archive
from edgenas.measuring.connection import KEPT_ENVIRONMENT, PINNED_ENVIRONMENT, Connection, End
from edgenas.workspace import cache_folder


class LocalConnection(Connection):
    """Runs the agent as a process of its own with a clean environment."""

    def start(self) -> subprocess.Popen[bytes]:
        folder = cache_folder() / "agent"
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        python = self.profile.python or sys.executable
        try:
            return subprocess.Popen(
                [python, str(write_archive(folder)), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**kept, **PINNED_ENVIRONMENT},
                # Ctrl-C belongs to the host, which then closes the agent's stdin.
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceUnreachableError(
                f"the agent for '{self.profile.id}' does not start: {error}",
                hint=f"'python' in the profile names the interpreter; it is {python}",
            ) from error

    def end_of(self, returncode: int) -> End:
        if returncode >= 0:
            return End(lost=False, reason=f"the agent ended with code {returncode}")
        name = signal.Signals(-returncode).name
        memory = ", which is what a system short of memory does" if name == "SIGKILL" else ""
        return End(lost=False, reason=f"the agent was ended by {name}{memory}")

    def hint(self, stderr: str) -> str:
        if "disk is full" in stderr:
            return "free some space, or: edgenas clean --yes"
        if "stays at" in stderr:
            return "cool it, or raise temperature_limit_c in its profile"
        runtime = self.profile.runtime
        newer = "--upgrade " if "too old" in stderr else ""
        return f"install the runtime into this environment: pip install {newer}{runtime}" if stderr else ""

    def close(self) -> None:
        """Nothing is held."""
