"""A user's own measure of quality, for models whose outputs are not classes: ``--metric module:function``."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError

CONTRACT = (
    "write 'def function(outputs, targets)': both are dictionaries of arrays, the outputs by the model's "
    "output names, the targets by the names of the arrays that stand beside the inputs in the .npz file; "
    "return one number for each sample of the batch, higher is better"
)


class Metric:
    """Rates the outputs of each sample; the mean over the samples is what is reported and limited.

    One number for each sample, rather than one for the whole set, is what allows a paired comparison
    and keeps memory bounded. Modules are also looked for in the current folder.

    Args:
        spec: ``module:function``.

    Raises:
        UsageError: there is no such module or function.
    """

    def __init__(self, spec: str) -> None:
        module_name, _, name = spec.partition(":")
        if not module_name or not name:
            raise UsageError(f"--metric '{spec}' is not of the form module:function", hint=CONTRACT)
        self.spec = spec
        function = getattr(_imported(module_name, spec), name, None)
        if not callable(function):
            raise UsageError(f"--metric '{spec}': '{module_name}' has no function '{name}'", hint=CONTRACT)
        self._function: Callable[..., Any] = function

    @property
    def sha256(self) -> str:
        """Hash of the file that the function stands in: what is rated again when it changes."""
        source = inspect.getsourcefile(self._function)
        content = Path(source).read_bytes() if source and Path(source).is_file() else b""
        return hashlib.sha256(self.spec.encode() + content).hexdigest()

    def __call__(
        self, outputs: Mapping[str, npt.NDArray[Any]], targets: Mapping[str, npt.NDArray[Any]], samples: int
    ) -> list[float]:
        """The rating of each of ``samples`` samples.

        Raises:
            UsageError: the function did not return one finite number for each.
        """
        found = np.asarray(self._function(dict(outputs), dict(targets)))
        if found.shape != (samples,) or found.dtype.kind not in "fiub" or not np.isfinite(found).all():
            raise UsageError(
                f"--metric '{self.spec}' returned {found.dtype} {list(found.shape)}, not one finite number "
                f"for each of the {samples} samples of a batch",
                hint=CONTRACT,
            )
        listed: list[float] = found.astype(np.float64).tolist()
        return listed


def _imported(name: str, spec: str) -> Any:
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"--metric '{spec}': cannot import '{name}': {error}", hint=CONTRACT) from error
    finally:
        if added:
            sys.path.remove(folder)
