"""First use of a struct from several threads at once, in a process of its own: the failure is a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, threading, types
sys.setswitchinterval(1e-6)
STRUCTS = '''
class Inner(Base, **options):
    x: "list[int]"
    y: "dict[str, float]"
class Outer(Base, **options):
    a: int
    b: "list[Inner]"
    c: "Inner | None"
    d: bytes
    e: "dict[str, Inner]"
'''
for n in range(60):
    module = types.ModuleType(f"fresh{n}")
    sys.modules[module.__name__] = module
    module.__dict__.update(Base=Base, options=options)
    exec(STRUCTS, module.__dict__)
    inner = module.Inner([1], {"q": 1.0})
    raw = encode(module.Outer(1, [inner], None, b"x", {"k": inner}))
    gate = threading.Barrier(4)
    def first_use():
        gate.wait()
        decode(module.Outer, raw)
    threads = [threading.Thread(target=first_use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""

WIRE = "from wire.codec import Wire as Base, decode, encode\noptions = {'frozen': True}\n"
SDK = """
from quorate._canonical import Struct as Base, encode, decode as bounded
options = {"frozen": True}
def decode(kind, raw):
    return bounded(kind, raw, 1000)
"""


@pytest.mark.parametrize("header", [WIRE, SDK], ids=["wire", "sdk"])
def test_threads_may_decode_a_struct_for_the_first_time_together(header: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", header + PROGRAM],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'sdk'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
