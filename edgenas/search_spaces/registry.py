"""Finds search spaces by name: built in, from other packages, or a user's own TOML file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

from edgenas.errors import UnknownNameError
from edgenas.search_spaces.dense import DENSE_32PX, DENSE_DEMO
from edgenas.search_spaces.mobilenetv3 import (
    MOBILENETV3,
    MOBILENETV3_32PX,
    MOBILENETV3_32PX_JOINT,
    MOBILENETV3_DEMO,
)
from edgenas.search_spaces.nasbench201 import NASBench201
from edgenas.search_spaces.nasbench_macro import NASBenchMacro
from edgenas.search_spaces.residual import RESIDUAL, RESIDUAL_32PX, RESIDUAL_32PX_JOINT
from edgenas.search_spaces.space import SearchSpace
from edgenas.search_spaces.staged import StagedSpace
from edgenas.search_spaces.text_encoder import TextEncoder
from edgenas.search_spaces.toml_space import read_space

ENTRY_POINTS = "edgenas.search_spaces"
CLASSES = 10  # outputs of networks that no data are known for

SpaceFactory: TypeAlias = Callable[..., SearchSpace]
"""Called with the keywords ``classes`` and ``channels``; returns the space."""

_STAGED = (
    DENSE_32PX,
    DENSE_DEMO,
    MOBILENETV3,
    MOBILENETV3_32PX,
    MOBILENETV3_32PX_JOINT,
    MOBILENETV3_DEMO,
    RESIDUAL,
    RESIDUAL_32PX,
    RESIDUAL_32PX_JOINT,
)
_BUILT_IN: dict[str, SpaceFactory] = {
    NASBench201.name: NASBench201,
    NASBenchMacro.name: NASBenchMacro,
    TextEncoder.name: TextEncoder,
    **{description.name: partial(StagedSpace, description) for description in _STAGED},
}


def get_space(name: str, *, classes: int = CLASSES, channels: int = 3) -> SearchSpace:
    """The search space of that name.

    Args:
        name: a built-in space, an entry point of the group ``edgenas.search_spaces``, or the path of
            a TOML file, which ends in ``.toml``.
        classes: outputs of its networks.
        channels: channels of its input images.

    Raises:
        UnknownNameError: no such space.
        UsageError: the TOML file cannot be read or describes no network.
    """
    if name.endswith(".toml"):
        return read_space(Path(name), classes=classes, channels=channels)
    factory = _factories().get(name)
    if factory is None:
        raise UnknownNameError("search space", name, _factories())
    return factory(classes=classes, channels=channels)


def space_names() -> tuple[str, ...]:
    """All names that ``get_space`` knows, sorted."""
    return tuple(sorted(_factories()))


def default_space(image_size: int) -> str:
    """The space for images whose shorter side is ``image_size`` pixels."""
    return "dense-32px" if image_size < 100 else "mobilenetv3"


def _factories() -> dict[str, SpaceFactory]:
    installed = {
        entry.name: partial(_from_entry, entry) for entry in metadata.entry_points(group=ENTRY_POINTS)
    }
    return {**installed, **_BUILT_IN}


def _from_entry(entry: metadata.EntryPoint, *, classes: int, channels: int) -> SearchSpace:
    factory: SpaceFactory = entry.load()
    return factory(classes=classes, channels=channels)
