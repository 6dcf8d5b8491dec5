"""The agent by itself: its archive, its protocol, and the parts that need no host."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import edgenas.agent
from edgenas.agent import fresh, latencies, onnx_wire, protocol, service
from edgenas.agent.backend import Feed, Session, get_backend, random_feed
from edgenas.agent.cache import ContentCache
from edgenas.agent.conditions import IdleThreads, RunQueue
from edgenas.agent.cpu import chosen_cores, cores_apart
from edgenas.agent.environment import read_environment, read_power_flags
from edgenas.agent.failures import AgentError
from edgenas.agent.layers import LayerAttribution, layer_of_name
from edgenas.agent.lease import Lease
from edgenas.agent.onnx_wire import chain_model
from edgenas.agent.pace import Pace
from edgenas.agent.protocol import parse_message, request_of
from edgenas.agent.rounds import Contender, Plan, Turn, measure_rounds
from edgenas.measuring.archive import agent_archive, write_archive
from tests.small_models import write_model

SOURCES = sorted(Path(edgenas.agent.__file__).parent.glob("*.py"))


class RawAgent:
    """An agent's process, driven line by line."""

    def __init__(self, folder: Path, stderr: int = subprocess.DEVNULL) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(write_archive(folder)), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        self.greeting = self.line()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        return message

    def write(self, line: bytes, attached: bytes = b"") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n" + attached)
        self.process.stdin.flush()

    def ask(self, method: str, *, attached: bytes = b"", **params: Any) -> dict[str, Any]:
        request = {"id": 7, "method": method, "params": params, "attached": len(attached)}
        self.write(json.dumps(request).encode(), attached)
        return self.reply()

    def reply(self) -> dict[str, Any]:
        while (message := self.line())["kind"] == "event":
            pass
        return message

    def hello(self) -> dict[str, Any]:
        return self.ask(
            "hello", protocol=protocol.PROTOCOL, runtime="onnxruntime", float_type="f32", holder="a test"
        )

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawAgent]:
    agent = RawAgent(tmp_path_factory.mktemp("agent"))
    yield agent
    agent.close()


def slow_model() -> bytes:
    """A model whose one run takes long: a chain of matrix products."""
    size, nodes, last = 512, [], "x"
    for number in range(40):
        nodes.append(helper.make_node("MatMul", [last, "w"], [f"t{number}"], name=f"layer{number}/matmul"))
        last = f"t{number}"
    nodes.append(helper.make_node("Identity", [last], ["y"], name="end"))
    weight = numpy_helper.from_array(np.full((size, size), 1e-3, np.float32), "w")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "xy"]
    graph = helper.make_graph(nodes, "slow", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    content: bytes = model.SerializeToString()
    return content


def small_model(folder: Path, width: int) -> bytes:
    return write_model(folder / f"{width}.onnx", width=width).read_bytes()


def put(agent: RawAgent, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    assert agent.ask("put", pieces=whole(content), attached=content)["kind"] == "result"
    return digest


def whole(*contents: bytes) -> list[dict[str, Any]]:
    """What a request says of contents that are attached to it one after the other."""
    return [
        {"content": hashlib.sha256(one).hexdigest(), "offset": 0, "size": len(one), "last": True}
        for one in contents
    ]


# --- the archive -----------------------------------------------------------------------------------


def test_archive_is_a_function_of_the_source() -> None:
    digest, content = agent_archive()
    agent_archive.cache_clear()
    assert agent_archive() == (digest, content)
    assert hashlib.sha256(content).hexdigest().startswith(digest)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_agent_needs_little(source: Path) -> None:
    """Only the standard library, numpy, and a runtime inside its backend; Python 3.9 can read it."""
    tree = ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(str(node.module))
        for name in names:
            top = name.partition(".")[0]
            runtime = source.name == f"{top}_backend.py" and node.col_offset > 0
            assert top in sys.stdlib_module_names or top == "numpy" or runtime


def test_agent_imports_no_runtime_before_it_is_asked() -> None:
    heavy = "{'onnxruntime', 'openvino', 'onnx', 'msgspec'}"
    code = f"import sys, edgenas.agent.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the protocol ----------------------------------------------------------------------------------


def test_greeting_names_the_protocol(raw: RawAgent) -> None:
    assert raw.greeting["edgenas"] == "agent"
    assert raw.greeting["protocol"] == protocol.PROTOCOL


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b'{"id": "one", "method": "hello"}',
        b'{"id": 1, "method": 5}',
        b'{"id": 1, "method": "hello", "params": []}',
        b'{"id": 1, "method": "no such method"}',
        b'{"id": 1, "method": "hello", "params": {"protocol": 99, "runtime": "onnxruntime"}}',
        b'{"id": 1, "method": "hello", "params": {"protocol": 2, "runtime": "abacus"}}',
        b'{"id": 1, "method": "put", "params": {"pieces": [{"content": "../../etc/passwd", "last": true}]}}',
        b'{"id": 1, "method": "put", "params": {"pieces": [{"content": "' + b"0" * 64 + b'", "size": 1}]}}',
        b'{"id": 1, "method": "put", "params": {"pieces": [3]}}',
        b'{"id": 1, "method": "put", "params": {"pieces": []}, "attached": -1}',
        b'{"id": 1, "method": "put", "params": {"pieces": []}, "attached": "all"}',
        b'{"id": 1, "method": "have", "params": {"contents": "abc"}}',
        b'{"id": 1, "method": "evaluate_next", "params": {"handle": 12}}',
        b"[" * 100_000,
    ],
    ids=range(19),
)
def test_malformed_request_is_answered_and_survived(raw: RawAgent, line: bytes) -> None:
    raw.write(line)
    reply = raw.reply()
    assert reply["kind"] == "error"
    assert reply["data"]["kind"] == "request"
    assert raw.hello()["kind"] == "result"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_parser_of_requests_never_fails_otherwise(line: bytes) -> None:
    try:
        request = request_of(parse_message(line), b"")
    except AgentError as error:
        assert error.kind == "request"
    else:
        assert isinstance(request.number, int) and isinstance(request.method, str)
        assert isinstance(request.params, dict)


def test_requests_before_hello_say_so(tmp_path: Path) -> None:
    agent = RawAgent(tmp_path)
    reply = agent.ask("environment")
    agent.close()
    assert reply["data"] == {"kind": "request", "message": "the first request is 'hello'"}


def test_unknown_content_is_reported_missing(raw: RawAgent) -> None:
    raw.hello()
    reply = raw.ask("trace", model="0" * 64, threads=1)
    assert reply["data"] == {"kind": "missing", "message": "0" * 64}


def test_damaged_content_is_refused(raw: RawAgent) -> None:
    reply = raw.ask("put", pieces=[{**whole(b"x")[0], "content": "0" * 64}], attached=b"x")
    assert "arrived damaged" in reply["data"]["message"]


def test_several_contents_travel_in_one_request(raw: RawAgent) -> None:
    contents = [os.urandom(size) for size in (3, 0, 100_000)]
    contents[0] = b'\n{"id'  # bytes that look like another request are bytes
    assert raw.ask("put", pieces=whole(*contents), attached=b"".join(contents))["kind"] == "result"
    names = [piece["content"] for piece in whole(*contents)]
    assert raw.ask("have", contents=names)["data"] == [
        {"complete": True, "size": len(content)} for content in contents
    ]


@pytest.mark.parametrize(
    "refused", [{"id": "one"}, {"id": 1, "method": 5}, {"id": 1, "method": "put", "params": []}]
)
def test_what_a_refused_request_has_attached_is_no_request(raw: RawAgent, refused: dict[str, Any]) -> None:
    attached = b'{"id": 7, "method": "environment", "params": {}}\n' * 3
    raw.write(json.dumps({**refused, "attached": len(attached)}).encode(), attached)
    assert raw.reply()["data"]["kind"] == "request"
    assert raw.ask("have", contents=[])["data"] == []


def test_what_is_attached_has_a_limit(tmp_path: Path) -> None:
    """An agent on a small board takes no more into memory than it said it would."""
    agent = RawAgent(tmp_path)
    size = protocol.MAX_REQUEST_BYTES + 1
    agent.write(json.dumps({"id": 1, "method": "put", "params": {}, "attached": size}).encode())
    assert agent.process.wait(60) == 3
    agent.close()


@pytest.mark.parametrize("attached", [b"", b"abc"])
def test_a_connection_cut_within_an_attachment_ends_the_agent(tmp_path: Path, attached: bytes) -> None:
    agent = RawAgent(tmp_path)
    agent.write(json.dumps({"id": 1, "method": "put", "params": {}, "attached": 9}).encode(), attached)
    agent.close()
    assert agent.process.returncode == 0


def test_closing_stdin_ends_a_measurement_in_flight(tmp_path: Path) -> None:
    agent = RawAgent(tmp_path)
    agent.hello()
    model = put(agent, slow_model())
    asked = {"models": [model], "threads": 1, "min_rounds": 1000, "max_rounds": 1000}
    agent.write(json.dumps({"id": 9, "method": "compare", "params": asked}).encode())
    while agent.line()["name"] != "measuring":
        pass
    agent.close()  # which waits a minute for what would take many
    assert agent.process.returncode == 0


def test_processes_that_begin_alike_measure_one_by_one(tmp_path: Path) -> None:
    agent = RawAgent(tmp_path)
    agent.hello()
    models = [put(agent, small_model(tmp_path, width)) for width in (3, 4)]
    rounds = {"min_rounds": 3, "max_rounds": 5, "runs_per_round": 2, "alike": True}
    results = agent.ask("compare", models=models, **rounds)["data"]["results"]
    assert list(results) == models
    for result in results.values():
        statistics = result["statistics"]
        assert 3 <= len(statistics["rounds_ms"]) <= 5
        assert statistics["runs"] == 2 * len(statistics["rounds_ms"]) and statistics["latency_ms"] > 0
    # What is over time is left for the next request; one model is measured in any case.
    in_time = agent.ask("compare", models=models, time_limit_s=0, **rounds)["data"]["results"]
    assert list(in_time) == models[:1]
    agent.close()


@pytest.mark.skipif(not Path("/proc").exists(), reason="the template is found in /proc")
def test_a_template_that_was_killed_is_started_again(tmp_path: Path) -> None:
    agent = RawAgent(tmp_path)
    agent.hello()
    model = put(agent, small_model(tmp_path, 3))
    asked = {"models": [model], "min_rounds": 2, "max_rounds": 2, "alike": True}
    assert "statistics" in agent.ask("compare", **asked)["data"]["results"][model]
    pid = agent.process.pid
    (template,) = children(pid)
    os.kill(template, signal.SIGKILL)
    for _ in range(2):  # the first may still find it, and is a failed measurement then
        result = agent.ask("compare", **asked)["data"]["results"][model]
    assert "statistics" in result
    agent.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ticks_worked(pid: int) -> int:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found in /proc")
def test_a_process_that_was_killed_while_it_measured_is_a_crash(tmp_path: Path) -> None:
    """The host tries such a model again, a model that fails by itself it does not."""
    agent = RawAgent(tmp_path)
    agent.hello()
    model = put(agent, slow_model())
    params = {"models": [model], "min_rounds": 1000, "max_rounds": 1000, "alike": True}
    agent.write(json.dumps({"id": 8, "method": "compare", "params": params}).encode())
    assert agent.line()["name"] == "loading"
    while not (copies := [copy for child in children(agent.process.pid) for copy in children(child)]):
        time.sleep(0.01)
    while ticks_worked(copies[0]) < 5:  # it has taken its job long before
        time.sleep(0.01)
    os.kill(copies[0], signal.SIGKILL)
    while (said := agent.line())["kind"] == "event":
        pass
    result = said["data"]["results"][model]
    assert result["crashed"] and "SIGKILL" in result["error"]
    agent.close()


@pytest.mark.parametrize("killed", [False, True])
def test_the_end_of_the_agent_ends_processes_that_measure_for_it(tmp_path: Path, killed: bool) -> None:
    agent = RawAgent(tmp_path, stderr=subprocess.PIPE)
    agent.hello()
    model = put(agent, slow_model())
    params = {"models": [model], "min_rounds": 1000, "max_rounds": 1000, "alike": True}
    agent.write(json.dumps({"id": 8, "method": "compare", "params": params}).encode())
    assert agent.line()["name"] == "loading"
    time.sleep(1.0)  # most likely it measures by then; it must end at any moment
    if killed:
        agent.process.kill()
    agent.close()
    assert agent.process.stderr is not None
    agent.process.stderr.read()  # which ends when nobody holds the other end any more
    agent.process.stderr.close()


def test_what_others_print_does_not_reach_the_protocol(tmp_path: Path) -> None:
    """Native code writes to descriptor 1 directly; the agent has moved its own away from there."""
    write_archive(tmp_path)
    digest, _ = agent_archive()
    code = f"""
import os, sys
sys.path.insert(0, {str(tmp_path / f"agent-{digest}.pyz")!r})
from edgenas_agent import main, service
original = service.Service.serve
def noisy(self, method, params, attached):
    os.write(1, b"native noise\\n")
    print("python noise", flush=True)
    return original(self, method, params, attached)
service.Service.serve = noisy
main.main([{str(tmp_path)!r}])
"""
    request = json.dumps({"id": 3, "method": "have", "params": {"contents": []}}).encode() + b"\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(request)
    process.stdin.flush()
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.stdin.close()
    assert process.wait(10) == 0
    assert lines[1] == {"id": 3, "kind": "result", "name": "", "data": []}
    assert b"native noise" in process.stderr.read()
    assert process.stdout.read() == b""
    process.stdout.close()
    process.stderr.close()


class SlowPipe(io.BytesIO):
    """Takes its time, so that a heartbeat becomes due while a line is written."""

    def write(self, line: Any) -> int:
        time.sleep(0.002)
        return super().write(line)


def test_a_heartbeat_never_follows_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_S", 0.001)
    written = SlowPipe()
    channel = protocol.Channel(io.BytesIO(), written)
    threading.Thread(target=channel._beat, daemon=True).start()
    for number in range(1, 21):
        channel.begin(number)
        channel.event("round", number=number)
        channel.result({})
        time.sleep(0.005)  # for a heartbeat that waited all the while
    channel.begin(21)
    for _ in range(5000):
        if b'"id":21' in written.getvalue():
            break
        time.sleep(0.002)
    channel.result({})
    messages = [json.loads(line) for line in written.getvalue().splitlines()]
    assert any(one["name"] == "alive" for one in messages)
    ends = {one["id"]: place for place, one in enumerate(messages) if one["kind"] == "result"}
    assert len(ends) == 21
    assert all(place <= ends.get(one["id"], -1) for place, one in enumerate(messages))


def test_formats_are_tried_once_however_often_the_environment_is_asked_for(tmp_path: Path) -> None:
    from edgenas.agent.onnxruntime_backend import OnnxRuntimeBackend

    class Counting(OnnxRuntimeBackend):
        tried = 0

        def _accepts(self, model: bytes) -> bool:
            self.tried += 1
            return super()._accepts(model)

    backend = Counting()
    first, tried = read_environment(backend), backend.tried
    again = read_environment(backend)
    assert backend.tried == tried > 0
    assert again["supported_opset"] == first["supported_opset"] >= 17


@pytest.mark.parametrize(("free_bytes", "loaded"), [(0, 1), (None, 3)])
def test_without_free_memory_one_model_at_a_time_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int | None, loaded: int
) -> None:
    monkeypatch.setattr(service, "free_memory_bytes", lambda: free_bytes)
    served = quiet_service(tmp_path)
    contents = []
    for number in range(3):
        content = write_model(tmp_path / f"{number}.onnx", width=256 + number).read_bytes()
        contents.append(hashlib.sha256(content).hexdigest())
        served.serve("put", {"pieces": whole(content)}, content)
    asked = {"models": contents, "threads": 1, "min_rounds": 2, "max_rounds": 2}
    assert len(served.serve("compare", asked)["results"]) == loaded


def test_a_model_is_compiled_while_nobody_measures(tmp_path: Path) -> None:
    served = quiet_service(tmp_path)
    content = write_model(tmp_path / "m.onnx").read_bytes()
    held: list[str] = []

    class Watching(type(served._runtime)):  # type: ignore[misc]
        def load(self, *arguments: Any, **options: Any) -> Any:
            other = Lease(tmp_path / "measuring.lock", "another")
            probe = os.open(other._path, os.O_RDWR)
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append("by this request")
            finally:
                os.close(probe)
            return super().load(*arguments, **options)

    served._backend = Watching()
    digest = hashlib.sha256(content).hexdigest()
    served.serve("put", {"pieces": whole(content)}, content)
    with pytest.raises(AgentError, match="the model's inputs are"):
        served.serve("evaluate_open", {"model": digest, "threads": 1, "inputs": {}})
    assert held == ["by this request"]


def quiet_service(folder: Path) -> service.Service:
    """A service whose events nobody hears, with ONNX Runtime."""
    served = service.Service(protocol.Channel(io.BytesIO(), io.BytesIO()), str(folder))
    hello = {"protocol": protocol.PROTOCOL, "runtime": "onnxruntime", "float_type": "f32", "holder": "a test"}
    served.serve("hello", hello)
    return served


@pytest.fixture
def left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process is noticed, so that what a test counts does not depend on what runs beside it."""
    monkeypatch.setattr("edgenas.agent.conditions._schedstat_files", list)


@pytest.mark.usefixtures("left_alone")
def test_disturbed_runs_count_for_the_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that was disturbed is timed once more; that its slow runs happened stays true."""
    disturbed = iter([True])
    monkeypatch.setattr(fresh.Disturbance, "disturbed", lambda _: next(disturbed, False))
    durations = iter([1e-2] * 5)
    log: list[str] = []

    class SlowAtFirst(CountedSession):
        def run(self) -> None:
            self._log.append(self._name)
            time.sleep(next(durations, 0.0))

    parts = fresh._timed_parts(SlowAtFirst("one", log), 100, 1, lambda: None)
    assert [len(part) for part in parts] == [10] + [5] * 19 and len(log) == 105
    assert min(parts[0][:5]) >= 10.0 and min(parts[0]) == min(parts[0][5:])


@pytest.mark.parametrize(
    ("answer", "flags"),
    [
        ("0x0", (False, False, False, False)),
        ("0x1", (False, True, False, False)),
        ("4", (True, False, False, False)),
        ("0x50000", (False, False, True, True)),
        ("0x50005", (True, True, True, True)),
        ("", (None, None, None, None)),
        ("error", (None, None, None, None)),
    ],
)
def test_the_firmwares_flags_are_told_apart(answer: str, flags: tuple[bool | None, ...]) -> None:
    names = ("throttled", "under_voltage", "throttled_before", "under_voltage_before")
    assert read_power_flags(answer) == dict(zip(names, flags, strict=True))


# --- the cache -------------------------------------------------------------------------------------


def _store(cache: ContentCache, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    cache.append(digest, 0, content, last=True)
    return digest


def test_cache_drops_what_was_not_used_longest(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, limit_bytes=250)
    first, second = _store(cache, b"a" * 100), _store(cache, b"b" * 100)
    for age, content in ((2, second), (1, first)):
        moment = time.time() - age
        os.utime(tmp_path / content, (moment, moment))
    third = _store(cache, b"c" * 100)
    assert cache.sizes([first, second, third]) == [(True, 100), (False, 0), (True, 100)]
    with pytest.raises(AgentError, match=second):
        cache.path(second)


def test_agents_that_share_a_full_cache_may_evict_the_same_files(tmp_path: Path) -> None:
    caches = [ContentCache(tmp_path, limit_bytes=2_000) for _ in range(4)]

    def fill(number: int) -> None:
        for step in range(60):
            _store(caches[number], f"{number} {step} ".encode() * 10)

    with ThreadPoolExecutor(len(caches)) as pool:
        list(pool.map(fill, range(len(caches))))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4_000


def test_cache_resumes_where_it_was_cut(tmp_path: Path) -> None:
    cache, content = ContentCache(tmp_path, 1 << 20), bytes(range(256))
    digest = hashlib.sha256(content).hexdigest()
    cache.append(digest, 0, content[:100], last=False)
    assert cache.sizes([digest]) == [(False, 100)]
    with pytest.raises(AgentError, match="does not follow"):
        cache.append(digest, 90, content[90:], last=True)
    cache.append(digest, 100, content[100:], last=True)
    assert cache.path(digest).read_bytes() == content


def test_two_agents_that_are_sent_one_model_do_not_collide(tmp_path: Path) -> None:
    """The second one writes a file of its own, from the beginning; both end with the model."""
    first, second = ContentCache(tmp_path, 1 << 20), ContentCache(tmp_path, 1 << 20)
    content = bytes(range(256))
    digest = hashlib.sha256(content).hexdigest()

    def send(cache: ContentCache, start: int, stop: int) -> None:
        cache.append(digest, start, content[start:stop], last=stop == len(content))

    send(first, 0, 100)
    assert second.sizes([digest]) == [(False, 0)]
    send(second, 0, 50)
    send(first, 100, 256)
    assert first.path(digest).read_bytes() == content
    send(second, 50, 256)
    assert second.path(digest).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [digest]


def test_many_agents_ship_one_model_at_once(tmp_path: Path) -> None:
    content = os.urandom(2_000)
    digest = hashlib.sha256(content).hexdigest()

    def ship(_: int) -> None:
        cache = ContentCache(tmp_path, 1 << 20)
        ((complete, start),) = cache.sizes([digest])
        while not complete and start < len(content):
            piece = content[start : start + 100]
            last = start + len(piece) == len(content)
            cache.append(digest, start, piece, last=last)
            start += len(piece)
        assert cache.path(digest).read_bytes() == content

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ship, range(64)))
    assert [path.name for path in tmp_path.iterdir()] == [digest]


def test_what_was_never_finished_makes_room_but_not_while_it_is_written(tmp_path: Path) -> None:
    left, busy, cache = (ContentCache(tmp_path, limit_bytes=250) for _ in range(3))
    for number, one in enumerate((left, busy)):
        one.append(f"{number}" * 64, 0, b"a" * 100, last=False)
        os.utime(tmp_path / f"{'01'[number] * 64}.part", (number, number))
    left._parts.popitem()[1].close()  # its agent was killed
    third = _store(cache, b"c" * 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{'1' * 64}.part", third])


def test_a_device_whose_disk_is_full_says_so_and_goes_on_later(tmp_path: Path) -> None:
    agent, content = RawAgent(tmp_path), os.urandom(3_000)
    digest = hashlib.sha256(content).hexdigest()
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
    failure = agent.ask("put", pieces=whole(content), attached=content)["data"]
    assert failure["kind"] == "device" and "cannot be written: File too large" in failure["message"]
    assert agent.ask("have", contents=[digest])["data"] == [{"complete": False, "size": 1_000}]
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, unlimited)
    rest = {"content": digest, "offset": 1_000, "size": 2_000, "last": True}
    assert agent.ask("put", pieces=[rest], attached=content[1_000:])["kind"] == "result"
    agent.close()


# --- statistics and rounds -------------------------------------------------------------------------


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=200))
def test_median_interval_has_its_confidence(values: list[float]) -> None:
    ordered = sorted(values)
    low, high = latencies.median_interval(ordered)
    assert low <= latencies.quantile(ordered, 0.5) <= high
    rank = max(r for r in range(len(ordered)) if ordered[r] == low and 2 * r < len(ordered))
    tail = sum(math.comb(len(ordered), r) for r in range(min(rank, ordered.index(low)) + 1)) / 2 ** len(
        ordered
    )
    assert 2 * tail <= 0.05 or ordered[0] == low


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], share: float) -> None:
    assert latencies.quantile(sorted(values), share) == pytest.approx(np.quantile(values, share))


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=50))
def test_fences_keep_the_middle_half_and_what_is_near(values: list[float]) -> None:
    ordered = sorted(values)
    kept = latencies.within_fences(ordered)
    first, third = np.quantile(ordered, [0.25, 0.75])
    assert kept and set(kept) >= {value for value in ordered if first + 1e-9 < value < third - 1e-9}
    assert all(
        first - 2 * (third - first) - 1e-9 <= value <= third + 2 * (third - first) + 1e-9 for value in kept
    )


def test_outlying_rounds_count_for_the_interval_alone() -> None:
    quiet = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06]
    found = latencies.statistics_of([*quiet, 9.0], [*quiet, 9.0])
    assert found["latency_ms"] == 1.03
    assert found["latency_relative_halfwidth"] > 3.0
    assert found["latency_p90_ms"] > 1.06 and len(found["rounds_ms"]) == 8


def test_p99_needs_a_hundred_runs() -> None:
    assert latencies.statistics_of([1.0, 2.0], [1.0] * 99)["latency_p99_ms"] is None
    assert latencies.statistics_of([1.0, 2.0], [1.0] * 100)["latency_p99_ms"] == 1.0


class CountedSession(Session):
    """Writes its name into a log whenever it runs."""

    inputs = ()

    def __init__(self, name: str, log: list[str]) -> None:
        self._name, self._log = name, log

    def bind(self, feed: Feed) -> None: ...

    def run(self) -> None:
        self._log.append(self._name)
        time.sleep(0.001)

    def outputs(self) -> Feed:
        return {}


@pytest.mark.usefixtures("left_alone")
def test_rounds_interleave_in_changing_order() -> None:
    log: list[str] = []
    contenders = [Contender(name, CountedSession(name, log)) for name in "abc"]
    for contender in contenders:
        contender.warm_up(1)
    log.clear()
    plan = Plan(10, 10, 1e-9, None, 1, 0)
    measure_rounds(contenders, plan, lambda number: None)
    turns = ["".join(log[start : start + 3]) for start in range(0, 30, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1
    assert all(len(one.rounds_ms) + len(one.disturbed_ms) >= 10 for one in contenders)


@pytest.mark.usefixtures("left_alone")
def test_rounds_end_when_the_median_is_known_or_time_is_over() -> None:
    known = Contender("known", CountedSession("known", []))
    measure_rounds([known], Plan(4, 40, 10.0, None, 2, 0), lambda number: None)
    assert len(known.rounds_ms) + len(known.disturbed_ms) <= 8
    late = Contender("late", CountedSession("late", []))
    measure_rounds([late], Plan(4, 40, 1e-9, time.monotonic() - 1, 2, 0), lambda number: None)
    assert len(late.rounds_ms) + len(late.disturbed_ms) == 1


@pytest.mark.usefixtures("left_alone")
def test_rounds_end_at_their_limit_which_knows_nothing_of_waiting() -> None:
    def rounds_made(limit_s: float, before_s: float) -> int:
        contender = Contender("one", CountedSession("one", []))  # its run takes a millisecond
        plan = Plan(6, 6, 1e-9, None, 1, 0, rounds_limit_s=limit_s)
        measure_rounds([contender], plan, lambda number: time.sleep(before_s))
        return len(contender.rounds_ms) + len(contender.disturbed_ms)

    assert rounds_made(limit_s=1e-9, before_s=0.0) == 1
    assert rounds_made(limit_s=60.0, before_s=0.0) >= 6
    assert rounds_made(limit_s=0.2, before_s=0.05) >= 6


class ScriptedContender(Contender):
    """Turn by turn what it takes in ms, and whether that was disturbed; after the script like the first."""

    def __init__(self, name: str, turns: list[tuple[float, bool]]) -> None:
        super().__init__(name, CountedSession(name, []))
        self._turns, self._usual = iter(turns), (turns or [(1.0, False)])[0][0]

    def turn(self, queue: RunQueue) -> Turn:
        latency_ms, disturbed = next(self._turns, (self._usual, False))
        return Turn([latency_ms], latency_ms, disturbed)


@pytest.mark.usefixtures("left_alone")
def test_a_round_counts_for_all_contenders_or_for_none() -> None:
    """Whoever compares them pairs their rounds by position, so that none may be missing of one alone."""
    drift = [1.0, 2.0, 3.0, 4.0, 5.0]
    steady = ScriptedContender("steady", [(ms, False) for ms in drift])
    again = [(3.5, True), (3.0, False)]  # disturbed once: the second turn counts in its place
    lasting = [(9.0, True), (9.5, True)]  # the second turn is disturbed as well
    shared = ScriptedContender("shared", [(1.0, False), *lasting, *again, (4.0, False), (5.0, False)])
    measure_rounds([steady, shared], Plan(4, 4, 1e-9, None, 1, 0), lambda number: None)
    assert steady.rounds_ms == shared.rounds_ms == [1.0, 3.0, 4.0, 5.0]
    assert (steady.disturbed_ms, shared.disturbed_ms) == ([2.0], [9.5])
    assert sorted(shared.runs_ms) == [1.0, 3.0, 3.5, 4.0, 5.0, 9.0, 9.5]


@pytest.mark.usefixtures("left_alone")
def test_contenders_that_are_never_left_alone_stay_in_step() -> None:
    steady = ScriptedContender("steady", [(float(ms), False) for ms in range(1, 5)])
    shared = ScriptedContender("shared", [(float(ms), True) for ms in (1, 1, 2, 2, 3, 3, 4, 4)])
    measure_rounds([steady, shared], Plan(4, 4, 1e-9, None, 1, 0), lambda number: None)
    assert steady.statistics(4)["rounds_ms"] == shared.statistics(4)["rounds_ms"] == [1.0, 2.0, 3.0, 4.0]


class ScriptedPace(Pace):
    """What the small network takes, turn by turn; after the script like the last."""

    def __init__(self, *turns_ms: float) -> None:
        super().__init__(get_backend("onnxruntime", "f32"), 1, IdleThreads())
        self._script = list(turns_ms)

    def _timed_ms(self) -> float:
        return self._script[0]

    def _look(self, warming_s: float) -> None:
        super()._look(warming_s)
        self._script = self._script[1:] or self._script


def test_a_device_is_slow_that_was_faster_three_times() -> None:
    pace = ScriptedPace(2.0, 1.0, 1.0, 2.0, 1.0, 2.0, 1.05)
    slow = []
    for _ in range(7):
        pace.turn()
        slow.append(pace.slow())
    assert slow == [False, False, False, False, False, True, False]


def test_what_is_usual_may_be_known_from_before() -> None:
    pace = ScriptedPace(2.0)
    assert not pace.lost()
    pace.known_ms = 1.9
    assert not pace.lost()
    pace.known_ms = 1.0
    assert pace.lost()


def test_a_state_that_is_rare_is_not_usual() -> None:
    pace = ScriptedPace(*[1.0] * 6, *[2.0] * 30)
    slow = [pace.lost() for _ in range(36)]
    assert slow[6:16] == [True] * 10 and not any(slow[26:])


def test_nobody_waits_longer_for_a_slow_device_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.agent.pace._FRESH_S", math.inf)
    again_fast = ScriptedPace(1.0, 1.0, 1.0, 2.0, 2.0, 1.0)
    for _ in range(4):
        again_fast.turn()
    assert again_fast.slow()
    again_fast.wait(600.0)
    assert not again_fast.slow()
    lasting = ScriptedPace(1.0, 1.0, 1.0, 2.0)
    for _ in range(4):
        lasting.turn()
    assert lasting.wait(0.5) >= 0.5 and lasting.slow()  # nor does it become usual meanwhile
    lasting._waited_s = 100.0  # of hardly any work
    assert lasting.wait(600.0) < 100.0 and lasting.slow()


@pytest.mark.usefixtures("left_alone")
def test_rounds_of_a_slow_device_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.agent.pace._FRESH_S", math.inf)
    contender = ScriptedContender("one", [(float(ms), False) for ms in (1, 2, 3, 4, 5)])
    pace = ScriptedPace(0.1, 0.1, 0.1, 0.1, 0.2, 0.105)
    pace.turn()
    plan = Plan(4, 4, 1e-9, None, 1, 0)
    measure_rounds([contender], plan, lambda number: None, pace)
    assert contender.result(plan)["disturbed_rounds"] == 0  # nothing else was in the way
    assert (contender.rounds_ms, contender.disturbed_ms) == ([1.0, 2.0, 3.0, 5.0], [4.0])
    assert contender.statistics(4)["pace_ms"] == 0.1


def test_the_pace_of_several_threads_is_told_where_somebody_is_patient(tmp_path: Path) -> None:
    served = quiet_service(tmp_path)
    content = write_model(tmp_path / "m.onnx").read_bytes()
    served.serve("put", {"pieces": whole(content)}, content)
    digest = hashlib.sha256(content).hexdigest()
    for threads, patience_s, told in ((2, 0.1, True), (2, 0.0, False), (1, 0.1, False)):
        asked = {"threads": threads, "patience_s": patience_s, "min_rounds": 2, "max_rounds": 2}
        found = served.serve("compare", {"models": [digest], **asked})["results"][digest]["statistics"]
        assert (found["pace_ms"] is not None) == told


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_small_network_is_a_valid_model(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    model = chain_model(3, 8, 4)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    (tmp_path / "m.onnx").write_bytes(model)
    session = get_backend(runtime, "f32").load(tmp_path / "m.onnx", 1)
    session.bind({"x": np.ones((1, 8, 4, 4), np.float32)})
    weight = 0.01 * (np.arange(64) % 7 - 3).reshape(8, 8)
    expected = np.ones(8)
    for _ in range(3):
        expected = np.maximum(weight @ expected, 0)
    assert session.outputs()["y"][0, :, 1, 2] == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("left_alone")
def test_a_turn_waits_for_threads_that_still_work() -> None:
    class CountedWaits(IdleThreads):
        count = 0

        def wait(self) -> None:
            self.count += 1

    for threads, expected in ((1, 0), (2, 4)):
        idle = CountedWaits()
        contender = Contender("one", CountedSession("one", []), threads, idle)
        contender.warm_up(2)
        measure_rounds([contender], Plan(4, 4, 1e-9, None, 2, 0), lambda number: None)
        assert idle.count == expected


_TELLS_WAITING = hasattr(os, "sched_getaffinity") and Path("/proc/self/schedstat").exists()
_DOES_NOT_TELL = "this kernel does not tell how long a thread waits for a core"
needs_schedstat = pytest.mark.skipif(not _TELLS_WAITING, reason=_DOES_NOT_TELL)


@pytest.fixture
def shared_core() -> Iterator[None]:
    """This thread on one core, together with a process that never rests."""
    if not _TELLS_WAITING:
        pytest.skip(_DOES_NOT_TELL)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    busy = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    assert busy.stdout is not None
    busy.stdout.readline()
    yield
    busy.kill()
    busy.wait()
    busy.stdout.close()
    os.sched_setaffinity(0, cores)


def long_contender(folder: Path) -> Contender:
    """A real session whose run is longer than the time after which the kernel lets another process run."""
    (folder / "slow.onnx").write_bytes(slow_model())
    session = get_backend("onnxruntime", "f32").load(folder / "slow.onnx", 1)
    session.bind(random_feed(session.inputs, 0))
    return Contender("slow", session)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="two threads need two cores, and a system that places them",
)
def test_threads_of_a_session_have_cores_of_their_own(tmp_path: Path) -> None:
    """Left to the system they meet on one core for minutes, and two threads are as slow as one."""
    before, everywhere = set(Path("/proc/self/task").iterdir()), os.sched_getaffinity(0)
    path = write_model(tmp_path / "m.onnx")
    session = get_backend("onnxruntime", "f32").load(path, 2)
    session.bind(random_feed(session.inputs, 0))
    (worker,) = set(Path("/proc/self/task").iterdir()) - before
    with session.placed():
        session.run()
        mine, other = os.sched_getaffinity(0), os.sched_getaffinity(int(worker.name))
        assert len(mine) == len(other) == 1 and not mine & other
    with pytest.raises(ZeroDivisionError), session.placed():
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == everywhere
    session = get_backend("onnxruntime", "f32").load(path, 1)
    with session.placed():
        assert os.sched_getaffinity(0) == everywhere


def test_siblings_of_a_core_come_last() -> None:
    alike = dict.fromkeys(range(16), 0)
    assert cores_apart({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, alike) == [0, 2, 1, 3]
    assert cores_apart({4: "4,12", 5: "5,13", 12: "4,12", 13: "5,13"}, alike) == [4, 5, 12, 13]


def test_the_caller_gets_a_fast_core_where_slow_ones_must_help() -> None:
    alone = {core: str(core) for core in range(6)}
    assert cores_apart(alone, {0: 408, 1: 408, 2: 408, 3: 408, 4: 1416, 5: 1416}) == [4, 5, 0, 1, 2, 3]


def test_where_threads_may_not_choose_cores_they_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(process: int, cores: set[int]) -> None:
        raise PermissionError("not here")

    backend, path = get_backend("onnxruntime", "f32"), write_model(tmp_path / "m.onnx")
    placed = backend.load(path, 2)
    monkeypatch.setattr(os, "sched_setaffinity", refused)
    everywhere, feed = os.sched_getaffinity(0), random_feed(placed.inputs, 0)
    for session in (placed, backend.load(path, 2)):
        session.bind(feed)
        with session.placed():
            assert os.sched_getaffinity(0) == everywhere
            assert session.outputs()["y"].shape == (1, 8)


def test_a_process_on_the_measuring_core_is_noticed(shared_core: None, tmp_path: Path) -> None:
    """In rounds that are far too short for the counters of the core, too; disturbed turns are repeated."""
    contender = long_contender(tmp_path)
    measure_rounds([contender], Plan(2, 2, 1e-9, None, 1, 0), lambda number: None)
    assert not contender.rounds_ms
    assert len(contender.disturbed_ms) >= 2
    assert contender.statistics(2)["rounds_ms"] == contender.disturbed_ms


def test_a_process_on_the_measuring_core_is_noticed_in_a_fresh_process(
    shared_core: None, tmp_path: Path
) -> None:
    contender = long_contender(tmp_path)
    parts = fresh._timed_parts(contender.session, 2, 1, lambda: None)
    assert [len(part) for part in parts] == [2, 2]  # each was timed once more


def test_a_fresh_process_that_ended_at_once_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written and never read must not hide how it ended."""
    ends = tmp_path / "python"
    ends.write_text("#!/bin/sh\nkill -9 $$\n")
    ends.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(ends))
    process = fresh.FreshProcess(str(tmp_path))
    process._process.wait()
    with pytest.raises(AgentError, match="SIGKILL"):
        process.ask([{"id": 1, "method": "hello", "params": {"filler": "x" * (1 << 17)}}], lambda *_: None)


def test_a_device_that_is_never_left_alone_does_not_double_the_time(
    shared_core: None, tmp_path: Path
) -> None:
    parts = fresh._timed_parts(long_contender(tmp_path).session, fresh.ROUNDS, 1, lambda: None)
    repeated = fresh.ROUNDS // 4
    assert [len(part) for part in parts] == [2] * repeated + [1] * (fresh.ROUNDS - repeated)


def test_where_the_kernel_does_not_tell_nobody_waits(
    shared_core: None, left_alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.agent.conditions._ticks", lambda: None)
    monkeypatch.setattr("edgenas.agent.conditions.frequency_mhz", lambda: None)
    contender = long_contender(tmp_path)
    measure_rounds([contender], Plan(2, 2, 1e-9, None, 1, 0), lambda number: None)
    assert len(contender.rounds_ms) == 2 and not contender.disturbed_ms


def test_threads_that_wait_for_each_other_are_nobody_elses_fault(shared_core: None) -> None:
    counts = []
    for threads in (1, 2):
        with contextlib.closing(RunQueue(threads)) as queue:
            counts.append(len(queue._files))
    assert counts[0] >= 1 and counts[1] == 0


@needs_schedstat
@pytest.mark.parametrize(
    ("waited_ns", "disturbed"),
    [((0, 0), False), ((9_000_000_000, 0), False), ((9_000_000_000, 9_000_000_000), True)],
)
def test_one_stretch_that_was_left_alone_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waited_ns: tuple[int, int], disturbed: bool
) -> None:
    """The fastest run of a turn is what counts."""
    path, total = tmp_path / "schedstat", 0
    path.write_text("5 0 1\n")
    monkeypatch.setattr("edgenas.agent.conditions._schedstat_files", lambda: [os.open(path, os.O_RDONLY)])
    queue = RunQueue(1)
    queue.begin()
    for waited in waited_ns:
        total += waited
        path.write_text(f"5 {total} 1\n")
        time.sleep(0.0015)
        queue.between_runs()
    assert queue.disturbed() is disturbed
    queue.close()


@needs_schedstat
def test_a_thread_that_ended_waits_no_more() -> None:
    queue, done = RunQueue(1), threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    with_thread = RunQueue(1)
    assert len(with_thread._files) == len(queue._files) + 1
    done.set()
    thread.join()
    for one in (queue, with_thread):
        one.begin()
        one.between_runs()
        one.disturbed()
        one.close()


@needs_schedstat
def test_a_thread_that_ended_does_not_hide_what_others_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("ends", "stays")]
    for path, waited_ns in zip(paths, (9_000_000_000, 0), strict=True):
        path.write_text(f"5 {waited_ns} 1\n")
    monkeypatch.setattr(
        "edgenas.agent.conditions._schedstat_files", lambda: [os.open(path, os.O_RDONLY) for path in paths]
    )
    with contextlib.closing(RunQueue(1)) as queue:
        queue.begin()
        paths[0].write_text("")  # a thread that is gone has nothing to read
        paths[1].write_text("5 9000000000 1\n")
        assert queue.disturbed()


@pytest.fixture
def busy_thread() -> Iterator[None]:
    """Another thread of this process works for a second or so; hashing lets this one run meanwhile."""
    thread = threading.Thread(target=lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000))
    thread.start()
    yield
    thread.join()


@pytest.fixture
def resting_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


def test_threads_that_never_rest_are_waited_for_twice(
    busy_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.agent.conditions._IDLE_LIMIT_S", 0.05)
    told: list[str] = []
    idle = IdleThreads(lambda: told.append("restless"))
    idle.wait()
    assert not told
    idle.wait()
    assert told == ["restless"]
    monkeypatch.setattr("edgenas.agent.conditions._others_work", lambda: pytest.fail("nobody waits any more"))
    idle.wait()
    assert told == ["restless"]


def test_waiting_ends_when_other_threads_are_idle(
    resting_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenas.agent.conditions._IDLE_LIMIT_S", 60.0)  # a busy machine needs longer
    idle = IdleThreads(lambda: pytest.fail("a thread that rests was waited for"))
    for _ in range(3):
        idle.wait()


def test_one_wait_in_vain_is_forgotten_after_one_that_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.agent.conditions._IDLE_LIMIT_S", 0.0)
    answers = iter([True, False, True, False, True, False])
    monkeypatch.setattr("edgenas.agent.conditions._others_work", lambda: next(answers))
    idle = IdleThreads(lambda: pytest.fail("it was never twice in a row"))
    for _ in range(6):
        idle.wait()


@needs_schedstat
def test_of_very_many_threads_the_callers_is_watched_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.agent.conditions._MOST_WATCHED", 1)
    with contextlib.closing(RunQueue(1)) as queue:
        (file,) = queue._files
        thread = Path("/proc/thread-self").readlink().name
        assert Path(f"/proc/self/fd/{file}").readlink().parts[-2:] == (thread, "schedstat")


# --- ONNX's encoding -------------------------------------------------------------------------------


def test_wire_reader_agrees_with_onnx() -> None:
    node = helper.make_node(
        "Conv", ["x", "w", ""], ["y"], name="a/conv", domain="some.domain",
        kernel_shape=[3, 3], group=-2, alpha=0.5, mode="max", floats=[1.0, 2.0], words=["u", "v"],
    )  # fmt: skip
    weights = [numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.int8), "w")]
    model = helper.make_model(helper.make_graph([node], "g", [], [], weights))
    read = onnx_wire.read_graph(model.SerializeToString())
    assert read.nodes[0]._replace(attributes={}) == onnx_wire.Node(
        "a/conv", "Conv", "some.domain", ["x", "w", ""], ["y"], {}
    )
    assert read.nodes[0].attributes == {
        attribute.name: _plain(helper.get_attribute_value(attribute)) for attribute in node.attribute
    }
    assert read.initializers == {"w": onnx_wire.Weight("int8", [4, 3, 3, 3])}


def test_the_wire_reader_shows_single_numbers_however_they_are_written() -> None:
    scale, zero_point = np.array(0.25, np.float32), np.array(200, np.uint8)
    typed = [
        helper.make_tensor("scale", onnx.TensorProto.FLOAT, (), [0.25]),
        helper.make_tensor("zero_point", onnx.TensorProto.UINT8, (), [200]),
    ]
    raw = [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero_point, "zero_point")]
    for weights in (typed, raw):
        model = helper.make_model(helper.make_graph([], "g", [], [], weights))
        read = onnx_wire.read_graph(model.SerializeToString()).initializers
        contents = [read[name].content for name in ("scale", "zero_point")]
        assert contents == [scale.tobytes(), zero_point.tobytes()]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [_plain(item) for item in value] if isinstance(value, list) else value


@given(st.binary(max_size=127))
def test_the_wire_reader_takes_any_bytes_for_a_graph_or_refuses_them(data: bytes) -> None:
    try:
        graph = onnx_wire.read_graph(b"\x3a" + bytes([len(data)]) + data)
    except ValueError:
        return
    assert len(graph.nodes) + len(graph.initializers) <= len(data)
    assert all(isinstance(node.op_type, str) for node in graph.nodes)


def test_a_model_that_was_cut_off_is_refused_or_has_no_graph(tmp_path: Path) -> None:
    content = write_model(tmp_path / "model.onnx").read_bytes()
    whole, refused = onnx_wire.read_graph(content), 0
    assert [node.op_type for node in whole.nodes] == ["Conv", "Relu", "ReduceMean"]
    for length in range(len(content)):
        try:
            assert onnx_wire.read_graph(content[:length]) in (onnx_wire.Graph([], {}), whole)
        except ValueError:
            refused += 1
    assert refused > 0.8 * len(content)


@given(st.integers(3, 13), st.integers(7, 25))
def test_tiny_models_are_valid(ir_version: int, opset: int) -> None:
    model = onnx.load_from_string(onnx_wire.tiny_model(ir_version, opset))
    onnx.checker.check_model(model)
    assert (model.ir_version, model.opset_import[0].version) == (ir_version, opset)


@pytest.mark.parametrize(
    ("speeds", "threads", "cores"),
    [
        ({0: 1024, 1: 1024}, 1, None),
        ({0: 446, 1: 446, 2: 1024, 3: 1000}, 2, {2, 3}),
        ({0: 446, 1: 446, 2: 1024, 3: 1024}, 3, None),
        ({0: 0, 1: 0}, 1, None),
        ({}, 1, None),
    ],
)
def test_fast_cores_are_chosen_where_kinds_differ(
    speeds: dict[int, int], threads: int, cores: set[int] | None
) -> None:
    assert chosen_cores(speeds, threads) == cores


# --- layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("s1b0/conv", "s1b0"),
        ("/layer1/conv", "layer1"),
        ("s1b0/act/part", "s1b0"),
        ("Transpose_3", ""),
        ("", ""),
    ],
)
def test_layer_is_the_part_before_the_slash(name: str, layer: str) -> None:
    assert layer_of_name(name) == layer


def test_anonymous_kernels_belong_to_what_feeds_them() -> None:
    attribution = LayerAttribution()
    assert attribution.layer("ReorderInput", ["x"], ["a"]) == ""
    assert attribution.layer("stem/conv_token_1", ["a", "w"], ["b"]) == "stem"
    assert attribution.layer("ReorderOutput_token_3", ["b"], ["c"]) == "stem"
    assert attribution.layer("Transpose_token_0", ["w", "c"], ["d"]) == "stem"


def test_onnx_runtime_tells_what_a_concatenation_of_integers_looks_up(tmp_path: Path) -> None:
    """What has the scale and zero point of the output is copied, which costs a fraction."""
    from edgenas.agent.onnxruntime_backend import OnnxRuntimeBackend
    from edgenas.latency_tables.profile_networks.building_blocks import concatenate, convolve
    from edgenas.latency_tables.profile_networks.sketch import Sketch

    backend, path, shares = OnnxRuntimeBackend(), tmp_path / "branches.onnx", set()
    for seed in range(6):
        sketch = Sketch((1, 16, 8, 8), np.random.default_rng(seed), int8_scheme="u8s8")
        source, found = sketch.value, []
        for channels in (24, 8):
            sketch.go_to(source)
            convolve(sketch, channels, 3, act="Relu")
            found.append(sketch.value)
        concatenate(sketch, found)
        convolve(sketch, 8, 3)
        onnx.save(sketch.model("branches", opset=17, ir_version=8), path)
        kernels = backend.trace(path, 1, runs=1, seed=0).kernels
        (share,) = (one["attributes"]["requantized"] for one in kernels if one["kind"] == "QLinearConcat")
        shares.add(share)
    assert 0.0 in shares and shares & {0.25, 0.75} and shares <= {0.0, 0.25, 0.75}


def test_openvino_tells_inputs_whose_integers_are_shifted(tmp_path: Path) -> None:
    """Its int8 kernels take up to twice as long where the zero point of the input is not 0."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    from edgenas.agent.openvino_backend import OpenVinoBackend
    from edgenas.latency_tables.profile_networks.building_blocks import convolve
    from edgenas.latency_tables.profile_networks.sketch import Sketch

    sketch = Sketch((1, 16, 8, 8), np.random.default_rng(0), int8_scheme="u8s8")
    for activation in ("Relu", "", "Relu"):  # what the next one reads: from 0 up, of both signs, from 0 up
        convolve(sketch, 16, 3, act=activation)
    convolve(sketch, 16, 3)
    path = tmp_path / "shifted.onnx"
    onnx.save(sketch.model("shifted", opset=17, ir_version=8), path)
    kernels = OpenVinoBackend().trace(path, 1, runs=1, seed=0).kernels
    found = [one["attributes"].get("input_zero_point") for one in kernels if one["kind"] == "Convolution"]
    assert found == [1, None, 1, None]


def test_openvino_shows_the_same_kernels_however_often_it_runs(tmp_path: Path) -> None:
    """A kernel of less than a microsecond is one all the same."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    from edgenas.agent.openvino_backend import OpenVinoBackend
    from edgenas.search_spaces import build_onnx, get_space

    space = get_space("mobilenetv3-32px")
    model = tmp_path / "network.onnx"
    genome = space.sample(np.random.default_rng(0), 1)[0]
    onnx.save(build_onnx(space.network(genome), opset=17, ir_version=8), model)
    backend = OpenVinoBackend()
    once, often = (backend.trace(model, 1, runs=runs, seed=0).kernels for runs in (1, 30))
    assert [kernel["name"] for kernel in once] == [kernel["name"] for kernel in often]
    assert all(kernel["latency_ms"] > 0 for kernel in often)


@pytest.mark.parametrize(
    ("slowed", "asked", "factor"), [([0], 1, 1.0), ([1, 2, 0], 3, 1.0), ([3, 1, 2, 4], 4, 2.0)]
)
def test_openvinos_counters_are_taken_from_runs_that_were_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slowed: list[int], asked: int, factor: float
) -> None:
    """One moment of other work stands in the mean of all runs; ``slowed`` is how much of it a copy had."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    from edgenas.agent import openvino_backend

    copies = iter(slowed)
    counts = openvino_backend._counted

    def counted(session: Any, runs: int, seed: int) -> Any:
        found, slow = counts(session, runs, seed), next(copies)
        means = dict.fromkeys(found.latencies_us, 10.0 * (1 + slow))
        return found._replace(latencies_us=means, runs_s=[1e-3] * (runs - 1) + [1e-3 * (1 + 10 * slow)])

    monkeypatch.setattr(openvino_backend, "_counted", counted)
    trace = openvino_backend.OpenVinoBackend().trace(write_model(tmp_path / "m.onnx"), 1, runs=10, seed=0)
    assert len(slowed) - len(list(copies)) == asked
    assert all(kernel["latency_ms"] == pytest.approx(0.01 * factor) for kernel in trace.kernels)


def test_a_float_type_is_part_of_where_a_latency_was_measured_and_refused_where_there_is_none() -> None:
    from edgenas.agent.backend import get_backend
    from tests.test_latency_tables import ENVIRONMENT

    changed = msgspec.structs.replace(ENVIRONMENT, float_type="bf16")
    assert changed.fingerprint() != ENVIRONMENT.fingerprint()
    with pytest.raises(AgentError, match="own types"):
        get_backend("onnxruntime", "bf16")
