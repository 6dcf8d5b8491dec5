"""How an agent is started on a device."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from typing import NamedTuple

from edgenas.device_profiles import DeviceProfile

# What a measuring process inherits; everything else of the user's environment stays away from it.
KEPT_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
)  # fmt: skip
# NumPy's own thread pools must not run beside the runtime's.
PINNED_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    # Dictionaries take the same steps in every process: a part of what a virtual clock counts.
    "PYTHONHASHSEED": "0",
}


class End(NamedTuple):
    """Why an agent's process ended: the connection was lost, or the agent itself ended."""

    lost: bool
    reason: str


class Connection(ABC):
    """Starts agents on one device."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile

    @abstractmethod
    def start(self) -> subprocess.Popen[bytes]:
        """A new agent's process with three pipes.

        Raises:
            DeviceUnreachableError: it cannot be started.
        """

    @abstractmethod
    def end_of(self, returncode: int) -> End:
        """What an agent's return code means."""

    @abstractmethod
    def hint(self, stderr: str) -> str:
        """What to type when the agent did not start and left this on stderr."""

    @abstractmethod
    def close(self) -> None:
        """Gives back whatever the connection holds besides its agents."""
