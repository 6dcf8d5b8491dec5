"""The agent as one file: a zip archive that Python runs, the same bytes for the same source."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib.resources import files
from pathlib import Path

from edgenas.files import write_atomically

_PACKAGE = "edgenas_agent"
# zipimport never keeps what it compiled. Unpacked beside the archive once, the modules start from
# their .pyc files from the second time on, which is what makes the start short on a slow device.
_MAIN = f"""\
import os, sys
archive = os.path.abspath(sys.argv[0])
folder = archive[: -len(".pyz")]
if not os.path.isdir(folder):
    import shutil, tempfile, zipfile
    fresh = tempfile.mkdtemp(prefix=".agent-", dir=os.path.dirname(archive))
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(fresh)
    try:
        os.rename(fresh, folder)
    except OSError:
        shutil.rmtree(fresh)  # another agent was quicker
sys.path.insert(0, folder)
from {_PACKAGE}.main import main
sys.exit(main())
"""


@cache
def agent_archive() -> tuple[str, bytes]:
    """The archive's hash (16 hexadecimal digits) and its bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for name, source in sorted(_sources().items()):
            _add(archive, f"{_PACKAGE}/{name}", source)
    content = packed.getvalue()
    return hashlib.sha256(content).hexdigest()[:16], content


def write_archive(folder: Path) -> Path:
    """The archive as a file in ``folder``, named by its hash."""
    digest, content = agent_archive()
    path = folder / f"agent-{digest}.pyz"
    if not path.exists():
        write_atomically(path, content)
    return path


def _sources() -> dict[str, bytes]:
    package = files("edgenas.agent")
    return {
        item.name: item.read_bytes()
        for item in package.iterdir()
        if item.name.endswith(".py") and item.name != "__main__.py"
    }


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
