"""Writes the profile of a device that someone has."""

from __future__ import annotations

import json

import msgspec

from edgenas.device_profiles.loading import load_profile
from edgenas.device_profiles.profile import ID_PATTERN, DeviceProfile
from edgenas.errors import UnknownNameError, UsageError
from edgenas.files import write_atomically
from edgenas.workspace import Workspace, configuration_folder


def add_profile(device: str, base: str, changes: dict[str, str], workspace: Workspace) -> DeviceProfile:
    """A profile like ``base`` but for some values (the host, the runtime), kept in the user's own folder.

    Raises:
        UnknownNameError: there is no profile ``base``.
        UsageError: the name or the host cannot be one, the name is this machine's or a virtual board's,
            or the base is not reached over ssh.
    """
    if not ID_PATTERN.fullmatch(device):
        raise UsageError(
            f"'{device}' cannot be a device's name: lower-case letters, digits, dots, dashes, at most 64"
        )
    _check_free(device, workspace)
    found = load_profile(base, workspace)
    if found.connection != "ssh" or found.virtual:
        raise UsageError(
            f"'{base}' is not a device that one connects to; its connection is {found.connection}"
        )
    try:
        values = {**msgspec.to_builtins(found), **changes, "id": device}
        profile = msgspec.convert(values, DeviceProfile)
    except msgspec.ValidationError as error:
        told = ", ".join(f"{name} '{value}'" for name, value in changes.items())
        raise UsageError(
            f"{told} cannot be a device's: {error}", hint="a host is an ssh destination: USER@HOST"
        ) from error
    write_atomically(configuration_folder() / "device_profiles" / f"{device}.toml", _toml(profile))
    return profile


def _check_free(device: str, workspace: Workspace) -> None:
    """A name that commands use without ssh stays what it is: a host behind it would surprise all of them."""
    try:
        taken = load_profile(device, workspace)
    except UnknownNameError:
        return
    if taken.connection == "local" or taken.virtual:
        raise UsageError(
            f"'{device}' is the name of {'a virtual board' if taken.virtual else 'this machine'}",
            hint="choose another name: edgenas device add kitchen --profile rpi4 --host ...",
        )


def _toml(profile: DeviceProfile) -> str:
    values = msgspec.to_builtins(profile)
    facts = values.pop("facts")
    lines = [f"{name} = {_value(value)}" for name, value in values.items() if value is not None]
    for fact in facts:
        lines += ["", "[[facts]]", *(f"{name} = {_value(value)}" for name, value in fact.items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """A string, number or boolean as TOML, whose notation for these is JSON's."""
    return json.dumps(value, ensure_ascii=False)
