"""Where candidates are trained and scored: in this process, or on Ray workers here and elsewhere."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from edgenas.errors import UsageError
from edgenas.progress import say, warn

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 2
_CLUSTER = "ray://"
_UNANSWERED = (
    "start one: ray start --head --ray-client-server-port 10001. A cluster with a token answers nobody "
    "without it: RAY_AUTH_MODE=token RAY_AUTH_TOKEN=... (on its head: ray get-auth-token)"
)


class Workers(ABC):
    """Runs a function on many items. Results do not depend on where, nor on how many there are."""

    @abstractmethod
    def run(
        self, task: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result | None]]:
        """``(index, result)`` of every item as it comes; None where its worker died again and again.

        Args:
            task: a function of a module, or a ``functools.partial`` of one.
            items: records and plain values.
        """


class LocalWorkers(Workers):
    """One item after the other in this process."""

    def run(
        self, task: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result | None]]:
        for index, item in enumerate(items):
            yield index, task(item)


class RayWorkers(Workers):
    """Ray's workers, started (or connected to) when there is something to do for the first time.

    An item whose worker dies is run again on another one, up to twice. An error that the task raises is
    raised here.
    """

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._ray: Any = None
        self._ours = False

    def run(
        self, task: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result | None]]:
        ray = self._connected()
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_on_worker)
        running = {remote.remote(task, item): index for index, item in enumerate(items)}
        while running:
            finished, _ = ray.wait(list(running), num_returns=1)
            index = running.pop(finished[0])
            try:
                yield index, ray.get(finished[0])
            except ray.exceptions.WorkerCrashedError:
                warn(f"a worker died {RETRIES + 1} times with the same candidate, which is given up")
                yield index, None

    def close(self) -> None:
        """Ends what was started here."""
        if self._ours:
            self._ray.shutdown()
        self._ray, self._ours = None, False

    def _connected(self) -> Any:
        if self._ray is None:
            self._ray = _ray()
            if not self._ray.is_initialized():  # else, in a notebook, the user's own workers serve
                _start(self._ray, self._asked)
                self._ours = True
            say(f"candidates are trained and scored by Ray: {self._asked}")
        return self._ray


def _on_worker(task: Callable[[Any], Any], item: Any) -> Any:
    """What a Ray worker runs; its own name keeps tasks readable in Ray's tools."""
    return task(item)


@contextlib.contextmanager
def connected_workers(asked: str | None) -> Iterator[Workers]:
    """The workers that ``--workers`` means, for the time of the block.

    Args:
        asked: None for this process, a number for so many Ray workers on this machine, or the address
            of a Ray cluster, ``ray://HOST:PORT``, whose machines see the data and the run's folder
            under the same paths.

    Raises:
        UsageError: it is neither a number nor an address; later, where there is something to do: Ray is
            not installed, or nothing answers there.
    """
    if asked is None:
        yield LocalWorkers()
        return
    if not asked.startswith(_CLUSTER) and not (asked.isdigit() and int(asked)):
        raise UsageError(
            f"--workers {asked} is neither a number of workers nor the address of a Ray cluster",
            hint="--workers 4, or --workers ray://HOST:10001",
        )
    workers = RayWorkers(asked)
    try:
        yield workers
    finally:
        workers.close()


def _start(ray: Any, asked: str) -> None:
    """Connects to a cluster, or starts workers here, without dashboard and usage statistics."""
    if not asked.startswith(_CLUSTER):
        # "local" is a cluster of its own, also where another one runs on this machine.
        ray.init(
            address="local",
            num_cpus=int(asked),
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
        )
        return
    try:
        ray.init(address=asked, logging_level="ERROR")
    except ConnectionError as error:
        raise UsageError(f"no Ray cluster answers at {asked}", hint=_UNANSWERED) from error
    except RuntimeError as error:  # Ray's own words name both versions
        raise UsageError(f"the Ray cluster at {asked} cannot be used: {error}") from error


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--workers needs Ray", hint="pip install 'edgenas[ray]'") from error
    return ray
