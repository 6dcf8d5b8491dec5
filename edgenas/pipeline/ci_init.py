"""``ci init``: puts the gate's script and its GitHub action into a repository."""

from __future__ import annotations

from pathlib import Path

from edgenas.errors import UsageError
from edgenas.files import write_atomically
from edgenas.records import Record
from edgenas.workspace import Workspace

FILES = Path(__file__).parent / "ci_files"
FOLDER = "ci"


class CiInitResult(Record):
    """What was written, and the command that makes the first baseline."""

    folder: str
    files: tuple[str, ...]
    next_step: str


def ci_init(*, force: bool = False, workspace: Workspace | None = None) -> CiInitResult:
    """Writes ``ci/gate.sh`` (for any CI) and ``ci/action.yml`` (a composite action that calls it).

    Args:
        force: replace files that are there and differ.

    Raises:
        UsageError: a file is there, differs, and ``force`` was not given; nothing is written.
    """
    folder = (workspace or Workspace()).root / FOLDER
    sources = sorted(path for path in FILES.iterdir() if path.is_file())
    changed = [source for source in sources if _differs(folder / source.name, source)]
    if changed and not force:
        names = ", ".join(str(folder / source.name) for source in changed)
        raise UsageError(
            f"there already is {names}, and it differs", hint="replace it: edgenas ci init --force"
        )
    for source in sources:
        target = folder / source.name
        write_atomically(target, source.read_bytes())
        target.chmod(0o755 if source.suffix == ".sh" else 0o644)
    return CiInitResult(
        folder=str(folder),
        files=tuple(source.name for source in sources),
        next_step=f"edgenas check MODEL.onnx --baseline {FOLDER}/baseline.json --update",
    )


def _differs(target: Path, source: Path) -> bool:
    return target.exists() and target.read_bytes() != source.read_bytes()
