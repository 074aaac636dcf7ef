"""hivemind's calls (Go's libp2p daemon behind Python), measured in an environment of their own, as Lattica's are.

The wheel carries the daemon. The package itself imports torch, of which its calls need nothing: the environment has
only what they need, and the package's own `__init__` is passed over.
"""

from __future__ import annotations

from benchmarks.peers import ask, python_with

REQUIREMENT = "hivemind==1.1.12"
NEEDS = [
    "base58",
    "configargparse",
    "cryptography",
    "idna",
    "msgpack",
    "netaddr",
    "numpy",
    "prefetch_generator",
    "protobuf",
    "py-cid",
    "py-multihash",
    "pydantic",
    "sortedcontainers",
    "uvloop",
    "varint",
]

PROGRAM = """
import asyncio, importlib.util, json, os, subprocess, sys, time, types
from statistics import median, quantiles

base = os.path.dirname(importlib.util.find_spec("hivemind").origin)
for name in ("hivemind", "hivemind.utils"):
    module = types.ModuleType(name)
    module.__path__ = [os.path.join(base, *name.split(".")[1:])]
    sys.modules[name] = module
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p.p2p_daemon import P2P
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID

OPTIONS = dict(host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_ipfs=False, use_relay=False, dht_mode="server")

async def echo(request, context):
    return request

async def sink(request, context):
    return BytesValue(value=b"done")

async def serve():
    p2p = await P2P.create(**OPTIONS)
    await p2p.add_protobuf_handler("echo", echo, BytesValue)
    await p2p.add_protobuf_handler("sink", sink, BytesValue)
    where = [str(address) for address in await p2p.get_visible_maddrs()]
    print(json.dumps([p2p.peer_id.to_base58(), where]), flush=True)
    await asyncio.get_event_loop().run_in_executor(None, sys.stdin.read)
    await p2p.shutdown()

async def rate(one, size, count, flying):
    payload, left = BytesValue(value=bytes(size)), count
    async def work():
        nonlocal left
        while left > 0:
            left -= 1
            await one(payload)
    began = time.perf_counter()
    await asyncio.gather(*[work() for _ in range(flying)])
    return count / (time.perf_counter() - began)

async def call(scale):
    server = subprocess.Popen([sys.executable, "-c", sys.argv[3], "serve", "0", ""], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peer, where = json.loads(server.stdout.readline())
    p2p = await P2P.create(initial_peers=where, **OPTIONS)
    target = PeerID.from_base58(peer)
    def method(name):
        return lambda payload: p2p.call_protobuf_handler(target, name, payload, BytesValue)
    times = []
    await method("echo")(BytesValue(value=b"x"))
    for _ in range(200 * scale):
        began = time.perf_counter()
        await method("echo")(BytesValue(value=bytes(128)))
        times.append(1000 * (time.perf_counter() - began))
    found = {
        "network.rtt_ms": median(times), "network.rtt_p99_ms": quantiles(times, n=100)[98],
        "network.rtt_new_ms": median(times), "network.rtt_new_p99_ms": quantiles(times, n=100)[98],
        "network.rpc_128.streams": await rate(method("echo"), 128, 1000 * scale, 64),
        "network.rpc_256k.streams": await rate(method("echo"), 256 << 10, 60 * scale, 64),
        "network.bulk_mb_s": await rate(method("sink"), 1 << 20, 32 * scale, 4) * (1 << 20) / 1e6,
    }
    found["network.rpc_128.framed"] = found["network.rpc_128.streams"]
    found["network.rpc_256k.framed"] = found["network.rpc_256k.streams"]
    server.stdin.close()
    server.wait()
    await p2p.shutdown()
    print(json.dumps(found))

asyncio.run(serve() if sys.argv[1] == "serve" else call(int(sys.argv[2])))
"""


def hivemind_figures(quick: bool) -> dict[str, float]:
    """What hivemind's calls come to, by the names of our rows; they have a stream each.

    Raises:
        PeerMissing: it cannot be installed or run here.
    """
    interpreter = python_with("hivemind", REQUIREMENT, needs=NEEDS)
    found = ask(interpreter, PROGRAM, "call", "2" if quick else "5", PROGRAM)
    return {name: float(value) for name, value in found.items()}
