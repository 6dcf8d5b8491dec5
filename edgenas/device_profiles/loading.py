"""Finds profiles: those that come with EdgeNAS, the user's, the workspace's; later ones win."""

from __future__ import annotations

import difflib
from pathlib import Path

from edgenas.device_profiles.profile import DeviceProfile, read_profile
from edgenas.errors import UnknownNameError
from edgenas.workspace import Workspace, configuration_folder

BUILT_IN = Path(__file__).parent / "builtin"


def load_profile(device: str, workspace: Workspace) -> DeviceProfile:
    """The profile of one device. Profiles of other devices are not even read.

    Raises:
        UnknownNameError: there is none with this id.
        UsageError: its file is not a valid profile.
    """
    paths = _paths(workspace)
    if device not in paths:
        # A name that is nearly right is a slip, and the error itself says which one was meant.
        slip = difflib.get_close_matches(device, paths, n=1)
        add = f"add it: edgenas device add {device} --profile rpi4 --host USER@HOST"
        raise UnknownNameError("device", device, paths, hint="" if slip else add)
    return read_profile(paths[device])


def list_profiles(workspace: Workspace) -> tuple[DeviceProfile, ...]:
    """All profiles by id.

    Raises:
        UsageError: a file is not a valid profile.
    """
    return tuple(read_profile(path) for _, path in sorted(_paths(workspace).items()))


def _paths(workspace: Workspace) -> dict[str, Path]:
    folders = (BUILT_IN, configuration_folder() / "device_profiles", workspace.device_profiles)
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}
