"""Jobs that are done in processes which all begin alike."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, List

from . import fresh
from .failures import AgentError, how_it_ended, reported_as

Job = Dict[str, Any]

COPIES = "--copies"  # the argument with which this program is a template
_JOB_BYTES = 4096  # what a pipe takes and gives in one piece, at least
_ENDED = b"ended "


class Template:
    """A process that only waits: each job is done by a copy of it.

    It ends with this process, and a copy with it, whatever that is doing.
    """

    def __init__(self, arguments: List[str]) -> None:
        """With these arguments this program calls ``serve_copies`` on its stdin and stdout."""
        command = [sys.executable, *fresh.this_program(), *arguments]
        # Of the connection the environment tells other numbers every time.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SSH_")}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    @property
    def ended(self) -> bool:
        """Whether it cannot be asked any more."""
        return self._process.poll() is not None

    def ask(self, job: Job) -> Any:
        """What a copy made of the job.

        Raises:
            AgentError: it failed, or the copy or the template ended.
        """
        assert self._process.stdin is not None
        line = json.dumps(job).encode()
        if len(line) > _JOB_BYTES:
            raise AgentError("request", f"a job of {len(line)} bytes is too long")
        try:
            os.write(self._process.stdin.fileno(), line)
        except BrokenPipeError:
            raise self._gone() from None
        answer = self._answer()
        if "result" in answer:
            return answer["result"]
        raise AgentError(answer["kind"], answer["message"])

    def _answer(self) -> Dict[str, Any]:
        assert self._process.stdout is not None
        said = b""
        for line in self._process.stdout:
            if line.startswith(_ENDED):
                code = os.waitstatus_to_exitcode(int(line[len(_ENDED) :]))
                return {"kind": "crash", "message": how_it_ended(code)} if code else json.loads(said)
            said += line
        raise self._gone()

    def _gone(self) -> AgentError:
        self._process.wait()  # so that whoever asks next knows
        return AgentError("crash", "the template process ended")


def serve_copies(jobs: int, results: int, do: Callable[[Job], Any]) -> None:
    """Does every job that arrives in a copy of this process, until nobody can send one any more.

    Nothing of a job is read here, so that this process stays as it is.

    Args:
        jobs: descriptor of a pipe.
        results: descriptor of a pipe.
        do: what a copy does with a job; job and result are JSON.
    """
    while True:
        select.select([jobs], [], [])
        alive, held = os.pipe()
        copy = os.fork()
        if not copy:
            try:
                _do(jobs, results, held, do)
            finally:
                os._exit(1)
        os.close(held)
        # The next job comes after this one's end: what can be read before is that nobody waits any more.
        if not os.read(alive, 1) or jobs in select.select([jobs, alive], [], [])[0]:
            os.kill(copy, signal.SIGKILL)
            return
        os.close(alive)
        os.write(results, b"\n%s%d\n" % (_ENDED, os.waitpid(copy, 0)[1]))


def _do(jobs: int, results: int, taken: int, do: Callable[[Job], Any]) -> None:
    job = os.read(jobs, _JOB_BYTES)
    if job:
        os.write(taken, b".")
        left = memoryview(json.dumps(_answer(do, job)).encode())
        while left:
            left = left[os.write(results, left) :]
    os._exit(0)


def _answer(do: Callable[[Job], Any], job: bytes) -> Dict[str, Any]:
    try:
        with reported_as("runtime", "it failed"):
            return {"result": do(json.loads(job))}
    except AgentError as failure:
        return {"kind": failure.kind, "message": failure.message[:4000]}
