"""The child process of a pool: `python -m workloads [--variant V] [--threads N] [--cheat C]`.

Reads requests from standard input and answers on standard output. One thread computes, another reads, so that a
cancellation is seen between two steps and the process ends at once when its input closes, whatever it is doing.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
from typing import BinaryIO

from wire.errors import QuorateError
from workloads import pipe
from workloads.executor import Executor
from workloads.variants import make_executor


class Child:
    """Serves requests one after the other."""

    def __init__(self, executor: Executor, source: BinaryIO, sink: BinaryIO) -> None:
        self._executor, self._source, self._sink = executor, source, sink
        self._requests: queue.SimpleQueue[pipe.Request] = queue.SimpleQueue()
        self._cancelled = 0

    def serve(self) -> None:
        """Work for ever; the process ends when the input does."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            self._send(self._answer(self._requests.get()))

    def _read(self) -> None:
        try:
            while (request := pipe.read_request(self._source)) is not None:
                if isinstance(request, pipe.Cancel):
                    self._cancelled = request.call
                else:
                    self._requests.put(request)
        finally:
            os._exit(0)  # the parent is gone: nobody wants what the other thread computes

    def _send(self, reply: pipe.Reply) -> None:
        self._sink.write(pipe.frame(reply))
        self._sink.flush()

    def _answer(self, request: pipe.Request) -> pipe.Reply:
        call = request.call
        try:
            if isinstance(request, pipe.Run):
                output, trace = self._executor.run(
                    request.spec,
                    emit=lambda event: self._send(pipe.Happened(call, event)),
                    cancelled=lambda: call == self._cancelled,
                )
                return pipe.Ran(call, output, trace)
            if isinstance(request, pipe.Recheck):
                expected = self._executor.recheck(
                    request.spec,
                    request.output,
                    request.trace,
                    steps=request.steps,
                    cancelled=lambda: call == self._cancelled,
                )
                return pipe.Rechecked(call, expected)
            if isinstance(request, pipe.Recompute):
                return pipe.Recomputed(call, self._executor.recompute(request.spec, request.step, request.state))
            return pipe.Healthy(call, self._executor.health())
        except QuorateError as exc:
            return pipe.failed(call, exc)


def main() -> None:
    """Keep the real standard output for frames; whatever a library prints goes to standard error."""
    parser = argparse.ArgumentParser(prog="python -m workloads", description="Runs models for a pool; not for people.")
    parser.add_argument("--variant", default="default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cheat", help="cheat on purpose, to test the network's defences")
    options = parser.parse_args()
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    executor = make_executor(options.variant, threads=options.threads, cheat=options.cheat)
    Child(executor, sys.stdin.buffer, sink).serve()


if __name__ == "__main__":
    main()
