"""One look at a device over ssh: where things go, which Python there is, whether the agent is there."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from edgenas.errors import DeviceUnreachableError

_MARK = "edgenas-probe-1"
_OLDEST_PYTHON = (3, 9)

# Plain POSIX sh, read from stdin, so that it does not matter what the user's login shell is.
_SCRIPT = """\
echo {mark}
folder="${{EDGENAS_CACHE:-${{XDG_CACHE_HOME:-$HOME/.cache}}/edgenas}}/agent"
umask 077
mkdir -p "$folder" || echo "failed=the folder $folder cannot be made"
echo "folder=$folder"
echo "system=$(uname -sm)"
echo "agent=$(wc -c < "$folder/{archive}" 2>/dev/null || echo 0)"
for python in {pythons}; do
  found=$(command -v "$python" 2>/dev/null) || continue
  version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2], 32 + 32 * (sys.maxsize > 2**32))')
  [ -n "$version" ] && echo "python=$version $found"
done
echo {mark}
"""


class RemotePlace(NamedTuple):
    """What the agent needs to know to be started: absolute paths on the device."""

    folder: str
    python: str
    system: str
    archive_bytes: int


def probe_script(archive: str, python: str | None, *, own_environment: bool = True) -> bytes:
    """The script to feed to ``sh`` on the device."""
    own = '"$folder/../venv/bin/python" ' if own_environment else ""
    pythons = shlex.quote(python) if python else f"{own}python3 python"
    return _SCRIPT.format(mark=_MARK, archive=archive, pythons=pythons).encode()


def read_probe(output: str, device: str) -> RemotePlace:
    """What the script found.

    Raises:
        DeviceUnreachableError: there is no place to write, no Python, or one that is too old or 32-bit.
    """
    parts = output.split(_MARK)
    if len(parts) != 3:
        raise DeviceUnreachableError(
            f"'{device}' does not run commands: it answered {output[-200:].strip()!r}",
            hint="does its login shell print or start something? try: ssh HOST true",
        )
    lines = [line.partition("=") for line in parts[1].splitlines()]
    found = {key: value for key, _, value in lines if key != "python"}
    if "failed" in found:
        raise DeviceUnreachableError(f"'{device}': {found['failed']}", hint="free some space on the device")
    pythons = [value for key, _, value in lines if key == "python"]
    size = found.get("agent", "").strip()
    return RemotePlace(
        folder=found.get("folder", ""),
        python=_usable_python(pythons, device),
        system=found.get("system", ""),
        archive_bytes=int(size) if size.isdigit() else 0,
    )


def _usable_python(found: list[str], device: str) -> str:
    """The first Python of at least 3.9 in a 64-bit user space; entries are 'VERSION BITS PATH'."""
    for entry in found:
        version, bits, path = [*entry.split(" ", 2), "", ""][:3]
        major, _, minor = version.partition(".")
        known = major.isdigit() and minor.isdigit() and path.startswith("/")
        if known and (int(major), int(minor)) >= _OLDEST_PYTHON and bits == "64":
            return path
    if any(" 32 " in entry for entry in found):
        raise DeviceUnreachableError(
            f"'{device}' has a 32-bit user space, for which there is no onnxruntime",
            hint="install the 64-bit system on it",
        )
    shown = ", ".join(entry[:60] for entry in found) or "none"
    raise DeviceUnreachableError(
        f"'{device}' has no Python 3.9 or later; found: {shown}",
        hint="install python3 there, or name the interpreter as 'python' in the profile",
    )
