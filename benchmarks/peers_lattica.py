"""Lattica's calls, measured in an environment of their own: two processes on loopback, as in `benchmarks.network`."""

from __future__ import annotations

from benchmarks.peers import ask, python_with

REQUIREMENT = "lattica==1.0.21"

PROGRAM = """
import json, os, socket, subprocess, sys, time
from collections import deque
from statistics import median, quantiles
from lattica import ConnectionHandler, Lattica, rpc_method

class Bench(ConnectionHandler):
    @rpc_method
    def echo(self, payload):
        return payload

    @rpc_method
    def sink(self, payload):
        return len(payload)

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def node(bootstraps, port=0):
    builder = Lattica.builder().with_listen_addrs([f"/ip4/127.0.0.1/tcp/{port}"]).with_mdns(False).with_upnp(False)
    builder = builder.with_autonat(False).with_dcutr(False)
    return (builder.with_bootstraps(bootstraps) if bootstraps else builder).build()

def serve():
    port = free_port()
    lattica = node([], port)
    bench = Bench(lattica)
    print(json.dumps([lattica.peer_id(), port]), file=sys.stderr, flush=True)
    sys.stdin.readline()
    os._exit(0)

def rate(method, size, count, flying=64):
    payload, under_way = bytes(size), deque()
    began = time.perf_counter()
    for _ in range(count):
        if len(under_way) == flying:
            under_way.popleft().result()
        under_way.append(method(payload))
    while under_way:
        under_way.popleft().result()
    return count / (time.perf_counter() - began)

def call(scale):
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the library prints there, too
    server = subprocess.Popen([sys.executable, "-c", sys.argv[3], "serve", "0", ""],
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    line = ""
    while not line.startswith("["):
        line = server.stderr.readline()
    peer, port = json.loads(line)
    lattica = node([f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"])
    stub = Bench(lattica).get_stub(peer)
    deadline = time.time() + 20
    while True:
        try:
            stub.echo(b"x").result(timeout=5)
            break
        except Exception:
            if time.time() > deadline:
                raise
            time.sleep(0.2)
    times = []
    for _ in range(200 * scale):
        began = time.perf_counter()
        stub.echo(bytes(128)).result()
        times.append(1000 * (time.perf_counter() - began))
    found = {
        "network.rtt_new_ms": median(times), "network.rtt_new_p99_ms": quantiles(times, n=100)[98],
        "network.rtt_ms": median(times), "network.rtt_p99_ms": quantiles(times, n=100)[98],
        "network.rpc_128.streams": rate(stub.echo, 128, 2000 * scale),
        "network.rpc_256k.streams": rate(stub.echo, 256 << 10, 60 * scale),
        "network.bulk_mb_s": rate(stub.sink, 1 << 20, 32 * scale, 4) * (1 << 20) / 1e6,
    }
    found["network.rpc_128.framed"] = found["network.rpc_128.streams"]
    found["network.rpc_256k.framed"] = found["network.rpc_256k.streams"]
    server.stdin.close()
    os.write(out, json.dumps(found).encode())
    os._exit(0)

serve() if sys.argv[1] == "serve" else call(int(sys.argv[2]))
"""


def lattica_figures(quick: bool) -> dict[str, float]:
    """What Lattica's one kind of call comes to, by the names of our rows.

    Raises:
        PeerMissing: it cannot be installed or run here.
    """
    interpreter = python_with("lattica", REQUIREMENT)
    found = ask(interpreter, PROGRAM, "call", "2" if quick else "5", PROGRAM)
    return {name: float(value) for name, value in found.items()}
