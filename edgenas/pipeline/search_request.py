"""What a search was asked for, in one record, and what follows from it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import UsageError
from edgenas.pipeline.accuracy_sources import source_asked_for
from edgenas.pipeline.latency import SpaceLatency, compiled_latency, refuse_foreign_table
from edgenas.pipeline.search_folder import default_folder_name, place_of
from edgenas.search.schedule import CONSTANT
from edgenas.search_spaces import SearchSpace
from edgenas.units import unit_of
from edgenas.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The arguments of ``search``, which documents them; an empty ``device`` is the workspace's default."""

    latency_ms: tuple[float, ...]
    device: tuple[str, ...]
    space: str | None
    strategy: str
    accuracy: str
    checkpoint: Path | None
    data: str | None
    proxy: str | None
    objective: tuple[str, ...]
    counted: Mapping[str, float | None]
    weights: Mapping[str, float]
    shrink: bool
    pressure: str
    evaluations: int | None
    threads: int | None
    seed: int
    asked_folder: Path | None
    workers: str | None
    hyperparameters: bool
    workspace: Workspace

    def refuse_what_does_not_fit(self) -> None:
        """Wrong names and numbers are told before anything is loaded.

        Raises:
            TableError: a device's table is another tool's.
            UnknownNameError: no such device.
            UsageError: limits and devices, or a proxy and an accuracy source, do not fit.
        """
        for one in self.devices:
            refuse_foreign_table(one, self.workspace)
        _ = self.limits_ms, self.profiles, self.source

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """Their names."""
        return self.device or (self.workspace.device_or_default(None),)

    @cached_property
    def profiles(self) -> tuple[DeviceProfile, ...]:
        """Of the devices, in their order."""
        return tuple(load_profile(one, self.workspace) for one in self.devices)

    @cached_property
    def limits_ms(self) -> tuple[float, ...]:
        """Of the devices, in their order.

        Raises:
            UsageError: there is neither one limit nor one for each device.
        """
        return _for_each(self.latency_ms, self.devices)

    @property
    def limits(self) -> dict[str, float]:
        """Those on anything but latency."""
        return {name: most for name, most in self.counted.items() if most is not None}

    @cached_property
    def source(self) -> str:
        """``NAME[:DETAIL]`` of the accuracy source.

        Raises:
            UsageError: a proxy and another source were asked for.
        """
        asked = self.accuracy if self.proxy is None else _proxy(self.accuracy, self.proxy)
        return source_asked_for(asked, self.checkpoint)

    @cached_property
    def folder(self) -> Path:
        """Where the search's state is kept."""
        return self.asked_folder or self.workspace.runs / default_folder_name(
            space=self.space, source=self.source, checkpoint=self.checkpoint, devices=self.devices,
            latency_ms=self.latency_ms, strategy=self.strategy, objectives=self.objective,
            hyperparameters=self.hyperparameters, seed=self.seed, further=self._further(),
        )  # fmt: skip

    def _further(self) -> dict[str, Any]:
        """What makes it another search and is too long for a folder's name, or left out of it."""
        files = {
            "space": self.space, "detail": self.source.partition(":")[2], "checkpoint": self.checkpoint,
            "data": self.data,
        }  # fmt: skip
        places = {name: place_of(asked, self.workspace) for name, asked in files.items()}
        return {
            **places, "data": places["data"] or self.data, "limits": self.limits,
            "weights": dict(self.weights), "shrink": self.shrink, "threads": self.threads,
            "evaluations": self.evaluations, "pressure": self.pressure != CONSTANT and self.pressure,
        }  # fmt: skip

    @property
    def virtual_devices(self) -> tuple[str, ...]:
        """Those whose clock is modelled."""
        return tuple(profile.id for profile in self.profiles if profile.virtual)

    def unit(self, device: str) -> str:
        """What latencies on a device are called."""
        return unit_of(virtual=device in self.virtual_devices)

    def said_limits(self) -> str:
        """Every latency limit with its device, for messages."""
        pairs = zip(self.limits_ms, self.devices, strict=True)
        return ", ".join(f"{limit:g} {self.unit(one)} on '{one}'" for limit, one in pairs)

    def latencies(self, space: SearchSpace) -> dict[str, SpaceLatency]:
        """Predicted latencies of a space's genomes on each device."""
        return {
            one: compiled_latency(space, one, threads=self.threads, workspace=self.workspace)
            for one in self.devices
        }


def _for_each(latency_ms: Sequence[float], devices: Sequence[str]) -> tuple[float, ...]:
    if len(latency_ms) == 1:
        return tuple(latency_ms) * len(devices)
    if len(latency_ms) != len(devices):
        raise UsageError(
            f"{len(latency_ms)} latency limits were given for {len(devices)} devices ({', '.join(devices)})",
            hint="give --latency-ms once, or once for each --device",
        )
    return tuple(latency_ms)


def _proxy(accuracy: str, proxy: str) -> str:
    if accuracy not in {"auto", "proxy"}:
        raise UsageError(
            f"--proxy {proxy} and --accuracy {accuracy} were both given", hint="leave one of them out"
        )
    return f"proxy:{proxy}"
