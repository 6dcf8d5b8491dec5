"""The stages ``device add``, ``device setup``, ``device start`` and ``device stop``."""

from __future__ import annotations

import contextlib

from edgenas.device_profiles import DeviceProfile, add_profile, load_profile
from edgenas.errors import UsageError
from edgenas.measuring.installing import install_runtime, remove_everything
from edgenas.measuring.ssh import SshConnection
from edgenas.measuring.virtual_board import VirtualBoard
from edgenas.records import DeviceRunning, DeviceSetup
from edgenas.workspace import Workspace


def device_add(
    device: str,
    *,
    host: str,
    profile: str | None = None,
    runtime: str | None = None,
    workspace: Workspace | None = None,
) -> DeviceProfile:
    """Names a device that one has: a profile, and where it is reached.

    Args:
        device: the new name; its table is named after it.
        host: the ssh destination, ``USER@HOST`` or a name of ~/.ssh/config.
        profile: what kind of device it is; may be left out where ``device`` is a profile's name.
        runtime: ``onnxruntime`` or ``openvino``; the profile's when None. ``device_setup`` installs it.

    Raises:
        UnknownNameError: there is no such profile.
        UsageError: the name or the host cannot be one.
    """
    changes = {"host": host, **({"runtime": runtime} if runtime is not None else {})}
    return add_profile(device, profile or device, changes, workspace or Workspace())


def device_setup(device: str, *, remove: bool = False, workspace: Workspace | None = None) -> DeviceSetup:
    """Installs numpy and the runtime into a private environment on the device, or removes everything.

    Raises:
        UnknownNameError: there is no such profile.
        UsageError: the device is this machine.
        DeviceError: the device cannot be reached, or nothing can be installed there.
    """
    profile = load_profile(device, workspace or Workspace())
    if profile.connection == "local":
        raise UsageError(
            f"'{device}' is this machine, and uses the environment that EdgeNAS is installed in",
            hint=f"pip install {profile.runtime}",
        )
    with contextlib.closing(SshConnection(profile)) as connection:
        if remove:
            return DeviceSetup(device=device, removed=remove_everything(connection))
        return DeviceSetup(
            device=device, runtime=profile.runtime, runtime_version=install_runtime(connection)
        )


def device_start(device: str, *, workspace: Workspace | None = None) -> DeviceRunning:
    """Starts a virtual board in the background; builds its system the first time.

    Raises:
        UnknownNameError: there is no such profile.
        UsageError: the device is not a virtual board.
        DeviceError: a tool is missing, or the board does not come up.
    """
    board = VirtualBoard(load_profile(device, workspace or Workspace()))
    return DeviceRunning(device=device, running=True, process=board.start())


def device_stop(device: str, *, workspace: Workspace | None = None) -> DeviceRunning:
    """Ends a virtual board.

    Raises:
        UnknownNameError: there is no such profile.
        UsageError: the device is not a virtual board.
    """
    VirtualBoard(load_profile(device, workspace or Workspace())).stop()
    return DeviceRunning(device=device, running=False)
