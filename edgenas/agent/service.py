"""The requests that the agent serves."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional

from .backend import Backend, get_backend
from .cache import ContentCache
from .conditions import IdleThreads, cool_down
from .cpu import on_fastest_cores
from .environment import free_memory_bytes, read_environment, resident_bytes
from .evaluation import Evaluation
from .failures import AgentError
from .fresh import FreshProcess, characterise
from .lease import Lease, lease_path
from .pace import Pace
from .parameters import Parameters
from .protocol import PROTOCOL, Channel
from .rounds import Contender, Plan, measure_rounds
from .template import COPIES, Template

_CACHE_LIMIT_BYTES = 4 << 30
_MOST_SESSIONS = 24
_MEMORY_SHARE = 0.4
_ASSUMED_FREE_BYTES = 1 << 30  # where the system does not tell
_LEFT_BEHIND_S = 24 * 3600.0


class Service:
    """State of one agent: its runtime, its cache and the evaluations that are open."""

    def __init__(self, channel: Channel, cache_folder: str) -> None:
        self._channel = channel
        self._folder = Path(cache_folder) if cache_folder else Path.home() / ".cache" / "edgenas"
        self._cache = ContentCache(self._folder / "content", _CACHE_LIMIT_BYTES)
        self._lease_path = lease_path(self._folder)
        self._lease = Lease(self._lease_path, f"process {os.getpid()}")
        self._backend: Optional[Backend] = None
        self._template: Optional[Template] = None
        self._evaluations: Dict[int, Evaluation] = {}
        self._paces: Dict[int, Pace] = {}
        self._idle = IdleThreads(lambda: self._channel.event("restless"))
        _prepare_temporary_folder(self._folder / "tmp")
        self._methods: Dict[str, Callable[[Parameters], Any]] = {
            "hello": self._hello,
            "environment": self._environment,
            "have": self._have,
            "put": self._put,
            "compare": self._compare,
            "trace": self._trace,
            "characterise": self._characterise,
            "characterise_here": self._characterise_here,
            "evaluate_open": self._evaluate_open,
            "evaluate_next": self._evaluate_next,
            "evaluate_close": self._evaluate_close,
        }

    def serve(self, method: str, params: Dict[str, Any], attached: bytes = b"") -> Any:
        """The result of one request.

        Raises:
            AgentError: it cannot be served.
        """
        if method not in self._methods:
            raise AgentError("request", f"there is no method {method!r}; known: {', '.join(self._methods)}")
        return self._methods[method](Parameters(params, attached))

    def _hello(self, given: Parameters) -> Any:
        asked = given.integer("protocol", 0)
        if asked != PROTOCOL:
            raise AgentError("request", f"this agent speaks protocol {PROTOCOL}, asked was {asked}")
        self._backend = get_backend(given.text("runtime"), given.text("float_type"))
        self._lease = Lease(self._lease_path, given.text("holder"))
        return {"protocol": PROTOCOL}

    def _environment(self, _: Parameters) -> Any:
        return read_environment(self._runtime)

    def _have(self, given: Parameters) -> Any:
        return [{"complete": done, "size": size} for done, size in self._cache.sizes(given.texts("contents"))]

    def _put(self, given: Parameters) -> Any:
        attached = memoryview(given.attached)
        for piece in given.objects("pieces"):
            size = piece.integer("size", 0)
            if size > len(attached):
                raise AgentError("request", f"a piece has {size} bytes, and {len(attached)} are attached")
            self._cache.append(
                piece.text("content"),
                piece.integer("offset", 0),
                attached[:size],
                last=piece.flag("last", False),
            )
            attached = attached[size:]
        return {}

    def _trace(self, given: Parameters) -> Any:
        content, threads, runs = given.text("model"), _threads(given), given.integer("runs", 40, least=1)
        model = self._cache.path(content)
        # One run shows the structure; its time means nothing, so that nobody has to be kept waiting.
        with self._alone() if runs > 1 else contextlib.nullcontext(), on_fastest_cores(threads):
            self._cool(given)
            pace, patience_s = self._pace(given) if runs > 1 else None, given.number("patience_s", 0.0)
            if pace is not None:
                pace.wait(patience_s)
            trace = self._runtime.trace(model, threads, runs=runs, seed=0)
            if pace is not None and pace.lost() and pace.wait(patience_s) and not pace.slow():
                trace = self._runtime.trace(model, threads, runs=runs, seed=0)
        return {"runs": runs, "run_latency_ms": trace.run_latency_ms, "kernels": trace.kernels}

    def _compare(self, given: Parameters) -> Any:
        limit_s = given.optional_number("time_limit_s")
        with self._alone(), on_fastest_cores(_threads(given)):
            plan = Plan(
                given.integer("min_rounds", 8, least=2),
                given.integer("max_rounds", 40, least=2),
                given.number("relative_halfwidth", 0.01),
                None if limit_s is None else time.monotonic() + limit_s,
                given.integer("runs_per_round", 0) or None,
                given.integer("seed", 0),
                given.optional_number("rounds_limit_s"),
                given.number("patience_s", 0.0),
            )
            measured = self._one_by_one if given.flag("alike", False) else self._side_by_side
            return {"results": measured(plan, given)}

    def _side_by_side(self, plan: Plan, given: Parameters) -> Dict[str, Any]:
        contenders, failures = self._contenders(plan, given)
        measure_rounds(contenders, plan, lambda number: self._before_round(number, given), self._pace(given))
        results: Dict[str, Any] = {one.content: one.result(plan) for one in contenders}
        results.update({content: {"error": reason} for content, reason in failures.items()})
        return results

    def _one_by_one(self, plan: Plan, given: Parameters) -> Dict[str, Any]:
        results: Dict[str, Any] = {}
        chosen = given.texts("models")[: _most_sessions(given)]
        paths = {content: str(self._cache.path(content)) for content in chosen}
        for content, model in paths.items():
            if results and plan.deadline is not None and time.monotonic() > plan.deadline:
                break
            self._cool(given)
            self._channel.event("loading", model=content)
            try:
                job = {"model": model, "threads": _threads(given), "plan": plan._asdict()}
                results[content] = self._running_template().ask(job)
            except AgentError as failure:
                results[content] = {"error": failure.message, "crashed": failure.kind == "crash"}
        return results

    def _running_template(self) -> Template:
        if self._template is None or self._template.ended:
            self._template = Template([COPIES, self._runtime.name, self._runtime.float_type])
        return self._template

    def _contenders(self, plan: Plan, given: Parameters) -> Any:
        """Loads sessions until the batch is full or memory is short; at least one."""
        contenders: List[Contender] = []
        failures: Dict[str, str] = {}
        before, free = resident_bytes(), free_memory_bytes()
        free = _ASSUMED_FREE_BYTES if free is None else free
        for content in given.texts("models"):
            full = len(contenders) >= _most_sessions(given)
            if contenders and (full or resident_bytes() - before >= _MEMORY_SHARE * free):
                break
            self._channel.event("loading", model=content)
            path = self._cache.path(content)
            try:
                contenders.append(
                    Contender.loaded(self._runtime, path, _threads(given), plan.runs_per_round, self._idle)
                )
            except AgentError as failure:
                failures[content] = failure.message
        self._channel.event("measuring", models=len(contenders))
        return contenders, failures

    def _pace(self, given: Parameters) -> Optional[Pace]:
        """What tells whether several threads are slower than usual; None where nobody would wait for it."""
        threads = _threads(given)
        if threads == 1 or not given.number("patience_s", 0.0):
            return None
        if threads not in self._paces:
            self._paces[threads] = Pace(self._runtime, threads, self._idle)
        self._paces[threads].known_ms = given.optional_number("known_pace_ms")
        return self._paces[threads]

    def _before_round(self, number: int, given: Parameters) -> None:
        self._cool(given)
        if number:
            self._channel.event("round", number=number)

    def _characterise(self, given: Parameters) -> Any:
        self._cache.path(given.text("model"))
        fresh = {
            "runtime": self._runtime.name,
            "float_type": self._runtime.float_type,
            "protocol": PROTOCOL,
            "holder": "",
        }
        here = {
            "model": given.text("model"),
            "threads": _threads(given),
            "runs": given.integer("runs", 200, least=1),
            "temperature_limit_c": given.optional_number("temperature_limit_c"),
        }
        requests = [
            {"id": 1, "method": "hello", "params": fresh},
            {"id": 2, "method": "characterise_here", "params": here},
        ]
        with self._alone():
            return FreshProcess(str(self._folder)).ask(
                requests, lambda name, data: self._channel.event(name, **data)
            )

    def _characterise_here(self, given: Parameters) -> Any:
        model, runs = self._cache.path(given.text("model")), given.integer("runs", 200, least=1)
        with on_fastest_cores(_threads(given)):
            return characterise(self._runtime, model, _threads(given), runs, lambda: self._cool(given))

    def _evaluate_open(self, given: Parameters) -> Any:
        model = self._cache.path(given.text("model"))
        threads = _threads(given)
        with self._alone(), on_fastest_cores(threads):  # compiling is work that others would measure
            session = self._runtime.load(model, threads, optimized=given.flag("optimized", True))
        arrays = {name: self._cache.path(content) for name, content in given.text_map("inputs").items()}
        evaluation = Evaluation(session, arrays, given.integer("batch", 1, least=1))
        handle = max(self._evaluations, default=0) + 1
        self._evaluations[handle] = evaluation
        return {"handle": handle, "items": evaluation.items}

    def _evaluate_next(self, given: Parameters) -> Any:
        handle = given.integer("handle", 0)
        if handle not in self._evaluations:
            raise AgentError("request", f"there is no evaluation {handle}")
        with self._alone():
            batches, following = self._evaluations[handle].outputs(given.integer("start", 0))
        return {"batches": batches, "next": following}

    def _evaluate_close(self, given: Parameters) -> Any:
        self._evaluations.pop(given.integer("handle", 0), None)
        return {}

    def _alone(self) -> ContextManager[None]:
        return self._lease.held(lambda holder: self._channel.event("waiting", holder=holder))

    def _cool(self, given: Parameters) -> None:
        cool_down(given.optional_number("temperature_limit_c"), self._report_cooling)

    def _report_cooling(self, temperature: float) -> None:
        self._channel.event("cooling", temperature_c=temperature)

    @property
    def _runtime(self) -> Backend:
        if self._backend is None:
            raise AgentError("request", "the first request is 'hello'")
        return self._backend


def _prepare_temporary_folder(folder: Path) -> None:
    """Keeps temporary files beside the cache, and removes what agents that were killed left there."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)
    for left in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(left, ignore_errors=True)


def _threads(given: Parameters) -> int:
    return given.integer("threads", 1, least=1)


def _most_sessions(given: Parameters) -> int:
    return given.integer("most_sessions", _MOST_SESSIONS, least=1)
