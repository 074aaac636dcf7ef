"""Valid messages to start from: random values of any struct, made from its type, and the vectors of `tests/vectors`.

The structs that are sent are found by looking, so a new message is fuzzed without a line here.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from tests.crdt import op_vectors
from tests.dht.coreworld import identity
from tests.fuzz.mutation import Sign
from tests.ledger.parties import Key
from tests.verify.world import names, person
from wire.codec import Wire, encode

VECTORS = Path(__file__).parents[1] / "vectors"
PACKAGES = ("wire", "verify", "ledger", "crdt", "dht", "recommend", "workloads", "node")
NEVER_DECODED = "crdt.namespace.Namespace"
UNSENT = (
    "workloads.train",
    "workloads.nets",
    "workloads.networks_torch",
    "node.study",
    "node.__main__",
    "node.transport_libp2p",
)
WIDTHS = {
    "peer": 32,
    "source": 32,
    "target": 32,
    "key": 32,
    "author": 32,
    "job": 32,
    "root": 32,
    "signature": 64,
    "secret": 32,
    "salt": 32,
    "bls": 48,
}


@cache
def structs() -> dict[str, type[Wire]]:
    """Every struct that is encoded, by its dotted name."""
    for package in PACKAGES:
        root = importlib.import_module(package)
        for found in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not found.name.startswith(UNSENT) and not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    known = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _below(Wire)}
    return {name: known[name] for name in sorted(known) if name.split(".")[0] in PACKAGES and name != NEVER_DECODED}


def _below(kind: type[Wire]) -> list[type[Wire]]:
    return [each for child in kind.__subclasses__() for each in (child, *_below(child))]


@cache
def signers() -> dict[bytes, Sign]:
    """Everybody whose key the tests have."""
    people = [person(name) for name in ("requester", "worker", "stranger", *names(7).values())]
    others = [*(Key(number) for number in range(1, 6)), op_vectors.SIGNER, identity(1, "vector"), identity(2, "vector")]
    return {bytes(each.peer): each.sign for each in [*people, *others]}


def vectors(name: str) -> list[bytes]:
    """All byte strings of a vector file, good and bad."""
    found = json.loads((VECTORS / name).read_text())
    rows = found["vectors"] if isinstance(found, dict) else found
    return [bytes.fromhex(row["hex"]) for row in rows if isinstance(row.get("hex"), str)]


def values(kind: Any, count: int, seed: int = 0) -> list[bytes]:
    """Encoded random values of a type, most of which decode again."""
    random = Random(f"{kind}/{seed}")
    info = inspect.type_info(kind)
    return [encode(_value(info, random, 0)) for _ in range(count)]


def _value(info: Any, random: Random, depth: int, name: str = "") -> Any:
    match info:
        case inspect.Metadata():
            return _value(info.type, random, depth, name)
        case inspect.StructType():
            tag = [] if info.tag is None else [info.tag]
            return tag + [_value(field.type, random, depth + 1, field.name) for field in info.fields]
        case inspect.ListType():
            least, most = info.min_length or 0, info.max_length or 4
            count = random.choice((least, least, min(least + 1, most), min(least + 3, most)))
            return [_value(info.item_type, random, depth + 1, name) for _ in range(count if depth < 8 else least)]
        case inspect.DictType():
            keys = random.sample(["cosine", "step", "noise", "pixels", "tokens", "latents"], random.randrange(3))
            return {key: _value(info.value_type, random, depth + 1) for key in sorted(keys)}
        case inspect.UnionType():
            return _value(random.choice(info.types), random, depth, name)
        case inspect.LiteralType():
            return random.choice(info.values)
        case _:
            return _leaf(info, random, name)


def _leaf(info: Any, random: Random, name: str) -> Any:
    match info:
        case inspect.IntType():
            least = info.ge if info.ge is not None else 0 if info.gt is None else info.gt + 1
            most = info.le if info.le is not None else max(least + 8, 2**40)
            return random.choice((least, min(least + 1, most), min(least + 7, most), most))
        case inspect.FloatType():
            return random.choice((0.0, 1.0, 0.5, 1e-9, 3.25))
        case inspect.BytesType():
            least, most = info.min_length or 0, info.max_length
            width = WIDTHS.get(name, random.choice((0, 16, 32, 48, 96)))
            return random.randbytes(max(least, width if most is None else min(width, most)))
        case inspect.StrType():
            return random.choice(("name", "exact", "u1", "text.generate"))[: info.max_length or 99]
        case inspect.BoolType():
            return random.random() < 0.5
        case inspect.NoneType():
            return None
    raise AssertionError(f"no value of {info}")


def json_tree(value: Any) -> Any:
    """A struct as the object that its JSON form has."""
    return json.loads(json.dumps(msgspec.to_builtins(value)))
