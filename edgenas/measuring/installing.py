"""Puts what the agent needs onto a device: a private virtual environment with numpy and the runtime."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import DeviceError, DeviceUnreachableError
from edgenas.measuring.remote_probe import RemotePlace
from edgenas.measuring.ssh import SshConnection
from edgenas.progress import say, track

_INSTALL_S = 1800.0
# Newest first; pip takes the first that a wheel has. Source: PEP 600, PEP 599.
_GLIBC = (
    "manylinux_2_34",
    "manylinux_2_31",
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_17",
    "manylinux2014",
)


def install_runtime(connection: SshConnection) -> str:
    """Makes the environment and installs numpy and the profile's runtime; gives the runtime's version.

    The device's own pip is asked first; where the device has no internet, the wheels are fetched here
    for its platform and its Python and pushed over.

    Raises:
        DeviceError: neither way works.
    """
    place = connection.place(own_environment=False)
    folder = environment_of(place)
    python = f"{folder}/bin/python"
    packages = ["numpy", connection.profile.runtime]
    if not _made_with_pip(connection, place.python, folder) or not _installed_there(
        connection, python, packages
    ):
        say(f"'{connection.profile.id}' cannot install from its own package index; sending wheels from here")
        _install_from_here(connection, python, place, packages)
    return _version(connection, python)


def remove_everything(connection: SshConnection) -> str:
    """Removes the environment, the agent and its cache from the device; gives the folder that held them."""
    place = connection.place(own_environment=False)
    if not place.folder.endswith("/agent"):
        raise DeviceError(
            f"'{connection.profile.id}' named {place.folder} as the agent's folder; it is left alone"
        )
    connection.run(f"rm -rf {shlex.quote(environment_of(place))} {shlex.quote(place.folder)}")
    return str(Path(place.folder).parent)


def environment_of(place: RemotePlace) -> str:
    """The private virtual environment, beside the agent's folder."""
    return str(Path(place.folder).parent / "venv")


def _made_with_pip(connection: SshConnection, python: str, folder: str) -> bool:
    """Makes the virtual environment; false where the device's Python cannot put pip into it."""
    make = shlex.join([python, "-m", "venv", folder])
    try:
        connection.run(make, timeout_s=_INSTALL_S)
    except DeviceUnreachableError:
        connection.run(f"rm -rf {shlex.quote(folder)}")
        connection.run(shlex.join([python, "-m", "venv", "--without-pip", folder]), timeout_s=_INSTALL_S)
        return False
    return True


def _installed_there(connection: SshConnection, python: str, packages: list[str]) -> bool:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    try:
        connection.run(shlex.join([*command, "--only-binary=:all:", *packages]), timeout_s=_INSTALL_S)
    except DeviceUnreachableError as error:
        say(error.message)
        return False
    return True


def _install_from_here(
    connection: SshConnection, python: str, place: RemotePlace, packages: list[str]
) -> None:
    code = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_paths()['purelib'])"
    version, _, library = connection.run(shlex.join([python, "-c", code])).strip().partition(" ")
    with tempfile.TemporaryDirectory(prefix="edgenas-wheels-") as fetched:
        _fetch(connection.profile, Path(fetched), packages, version, place.system)
        wheels = sorted(Path(fetched).glob("*.whl"))
        with track("Sending wheels", len(wheels)) as task:
            for wheel in wheels:
                _unpack(connection, python, wheel, library)
                task.advance(note=wheel.name)


def _fetch(profile: DeviceProfile, folder: Path, packages: list[str], version: str, system: str) -> None:
    """Fetches wheels for the device's platform with this machine's pip.

    Raises:
        DeviceError: there are none.
    """
    name, _, machine = system.partition(" ")
    if name != "Linux" or not re.fullmatch(r"\d+\.\d+", version) or not re.fullmatch(r"\w+", machine):
        raise DeviceError(f"'{profile.id}' runs {system}; wheels can be sent to Linux only")
    platforms = [word for tag in _GLIBC for word in ("--platform", f"{tag}_{machine}")]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    command += ["--python-version", version, "--implementation", "cp", *platforms, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip gives no reason"]
        raise DeviceError(
            f"no wheels of {' and '.join(packages)} for Python {version} on {system}: {lines[-1][:300]}",
            hint="does this machine have internet, and does its environment have pip?",
        )


def _unpack(connection: SshConnection, python: str, wheel: Path, library: str) -> None:
    """Sends one wheel and unpacks it: these packages need nothing that an installer would add."""
    target = shlex.quote(f"{library}/{wheel.name}")
    connection.run(f"cat > {target}", given=wheel.read_bytes(), timeout_s=_INSTALL_S)
    connection.run(
        f"{shlex.join([python, '-m', 'zipfile', '-e'])} {target} {shlex.quote(library)} && rm {target}"
    )


def _version(connection: SshConnection, python: str) -> str:
    runtime = connection.profile.runtime
    code = f"import numpy, {runtime}; print({runtime}.__version__)"
    return connection.run(shlex.join([python, "-c", code])).strip()
