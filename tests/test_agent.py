"""The agent by itself: its archive, its protocol, and the parts that need no host."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import math
import os
import subprocess
import sys
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
from edgenas.agent import latencies, onnx_wire
from edgenas.agent.backend import Feed, Session
from edgenas.agent.cache import ContentCache
from edgenas.agent.cpu import chosen_cores
from edgenas.agent.failures import AgentError
from edgenas.agent.layers import LayerAttribution, layer_of_name
from edgenas.agent.protocol import parse_request
from edgenas.agent.rounds import Contender, Plan, measure_rounds
from edgenas.measuring.archive import agent_archive, write_archive
from tests.small_models import write_model

SOURCES = sorted(Path(edgenas.agent.__file__).parent.glob("*.py"))


class RawAgent:
    """An agent's process, driven line by line."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(write_archive(folder)), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.greeting = self.line()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        return message

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.write(json.dumps({"id": 7, "method": method, "params": params}).encode())
        return self.reply()

    def reply(self) -> dict[str, Any]:
        while (message := self.line())["kind"] == "event":
            pass
        return message

    def hello(self) -> dict[str, Any]:
        return self.ask("hello", protocol=1, runtime="onnxruntime", float_type="f32", holder="a test")

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
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


def put(agent: RawAgent, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    data = base64.b64encode(content).decode()
    assert agent.ask("put", content=digest, offset=0, data=data, last=True)["kind"] == "result"
    return digest


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
    assert raw.greeting["protocol"] == 1


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
        b'{"id": 1, "method": "hello", "params": {"protocol": 1, "runtime": "abacus"}}',
        b'{"id": 1, "method": "put", "params": {"content": "../../etc/passwd", "data": "", "last": true}}',
        b'{"id": 1, "method": "put", "params": {"content": "' + b"0" * 64 + b'", "data": "*"}}',
        b'{"id": 1, "method": "have", "params": {"contents": "abc"}}',
        b'{"id": 1, "method": "evaluate_next", "params": {"handle": 12}}',
        b"[" * 100_000,
    ],
    ids=range(16),
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
        number, method, params = parse_request(line)
    except AgentError as error:
        assert error.kind == "request"
    else:
        assert isinstance(number, int) and isinstance(method, str) and isinstance(params, dict)


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
    reply = raw.ask("put", content="0" * 64, offset=0, data=base64.b64encode(b"x").decode(), last=True)
    assert "arrived damaged" in reply["data"]["message"]


def test_closing_stdin_ends_a_measurement_in_flight(tmp_path: Path) -> None:
    agent = RawAgent(tmp_path)
    agent.hello()
    model = put(agent, slow_model())
    asked = {"models": [model], "threads": 1, "min_rounds": 1000, "max_rounds": 1000}
    agent.write(json.dumps({"id": 9, "method": "compare", "params": asked}).encode())
    while agent.line()["name"] != "measuring":
        pass
    start = time.monotonic()
    agent.close()
    assert agent.process.returncode == 0
    assert time.monotonic() - start < 5


def test_what_others_print_does_not_reach_the_protocol(tmp_path: Path) -> None:
    """Native code writes to descriptor 1 directly; the agent has moved its own away from there."""
    write_archive(tmp_path)
    digest, _ = agent_archive()
    code = f"""
import os, sys
sys.path.insert(0, {str(tmp_path / f"agent-{digest}.pyz")!r})
from edgenas_agent import main, service
original = service.Service.serve
def noisy(self, method, params):
    os.write(1, b"native noise\\n")
    print("python noise", flush=True)
    return original(self, method, params)
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


# --- the cache -------------------------------------------------------------------------------------


def _store(cache: ContentCache, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    cache.append(digest, 0, base64.b64encode(content).decode(), last=True)
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
    cache.append(digest, 0, base64.b64encode(content[:100]).decode(), last=False)
    assert cache.sizes([digest]) == [(False, 100)]
    with pytest.raises(AgentError, match="does not follow"):
        cache.append(digest, 90, base64.b64encode(content[90:]).decode(), last=True)
    cache.append(digest, 100, base64.b64encode(content[100:]).decode(), last=True)
    assert cache.path(digest).read_bytes() == content


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


def test_rounds_end_when_the_median_is_known_or_time_is_over() -> None:
    known = Contender("known", CountedSession("known", []))
    measure_rounds([known], Plan(4, 40, 10.0, None, 2, 0), lambda number: None)
    assert len(known.rounds_ms) + len(known.disturbed_ms) <= 8
    late = Contender("late", CountedSession("late", []))
    measure_rounds([late], Plan(4, 40, 1e-9, time.monotonic() - 1, 2, 0), lambda number: None)
    assert len(late.rounds_ms) + len(late.disturbed_ms) == 1


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


def test_a_float_type_is_part_of_where_a_latency_was_measured_and_refused_where_there_is_none() -> None:
    from edgenas.agent.backend import get_backend
    from tests.test_latency_tables import ENVIRONMENT

    changed = msgspec.structs.replace(ENVIRONMENT, float_type="bf16")
    assert changed.fingerprint() != ENVIRONMENT.fingerprint()
    with pytest.raises(AgentError, match="own types"):
        get_backend("onnxruntime", "bf16")
