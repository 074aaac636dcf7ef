"""The package itself: its public names, what it may import, and how little importing it loads."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quorate
from quorate._events import EventParser
from tests.sdk.node_double import event

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "sdk/quorate").glob("*.py"))

PUBLIC = [
    "Attempt",
    "Audit",
    "BadRequest",
    "Batch",
    "BatchItemView",
    "BatchResult",
    "BatchView",
    "Client",
    "Connection",
    "Embed",
    "EmbeddingOutput",
    "Event",
    "EventStream",
    "Image",
    "ImageOutput",
    "InsufficientCredit",
    "InvalidReceipt",
    "ItemResult",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobTimeout",
    "JobView",
    "Juror",
    "JurorView",
    "Ledger",
    "Model",
    "NoProvider",
    "Node",
    "NodeBusy",
    "NodeFault",
    "NodeUnreachable",
    "NotFound",
    "Output",
    "Peer",
    "PeerPenalties",
    "PeerRecord",
    "QuorateError",
    "Ranked",
    "Receipt",
    "ReceiptSummary",
    "Request",
    "Result",
    "SyncBatch",
    "SyncClient",
    "SyncEventStream",
    "SyncJob",
    "Text",
    "TextOutput",
    "Unaudited",
    "Unauthorized",
    "VerificationFailed",
    "verify_receipt",
]
HEAVY = {"httpx", "httpcore", "anyio", "py_ecc", "eth_utils", "nacl", "msgspec", "numpy", "pydantic", "asyncio"}


def test_the_public_names_are_these() -> None:
    assert quorate.__all__ == PUBLIC
    assert all(getattr(quorate, name).__name__ == name for name in PUBLIC)
    assert set(PUBLIC) < set(dir(quorate))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = quorate.Nothing


def test_every_error_has_the_one_root_and_stands_in_the_tree() -> None:
    tree = sys.modules["quorate.errors"].__doc__ or ""
    for name in PUBLIC:
        value = getattr(quorate, name)
        if inspect.isclass(value) and issubclass(value, BaseException):
            assert issubclass(value, quorate.QuorateError)
            assert name in tree or name == "JobError"


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "sdk", capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_loads_nothing_heavy() -> None:
    assert loaded_by("import quorate") & HEAVY == set()


def test_a_client_is_made_without_loading_http_or_signatures() -> None:
    loaded = loaded_by("import quorate; quorate.Client('http://127.0.0.1:1', 'token'); quorate.Client.sync")
    assert loaded & (HEAVY - {"msgspec"}) == set()


def test_verifying_loads_no_network() -> None:
    code = "import quorate\ntry: quorate.verify_receipt(b'')\nexcept quorate.InvalidReceipt: pass"
    assert loaded_by(code) & {"httpx", "httpcore", "anyio"} == set()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_only_declared_dependencies_are_imported(source: Path) -> None:
    allowed = {
        "httpx",
        "anyio",
        "msgspec",
        "nacl",
        "py_ecc",
        "py_arkworks_bls12381",
        "quorate",
    } | sys.stdlib_module_names
    roots: set[str] = set()
    for found in ast.walk(ast.parse(source.read_text())):
        if isinstance(found, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in found.names}
        elif isinstance(found, ast.ImportFrom):
            assert found.level == 0
            roots.add((found.module or "").partition(".")[0])
    assert roots <= allowed


def methods(kind: type) -> dict[str, list[str]]:
    """Public methods with the names of their parameters."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: list(inspect.signature(f).parameters) for name, f in found if not name.startswith("_")}


@pytest.mark.parametrize(("one", "twin"), [(quorate.Client, quorate.SyncClient), (quorate.Job, quorate.SyncJob)])
def test_the_twins_have_the_same_methods(one: type, twin: type) -> None:
    asynchronous, blocking = methods(one), methods(twin)
    assert asynchronous.pop("aclose", None) == blocking.pop("close", None)
    bounded = blocking.get("events", ["self"])
    assert bounded in (["self"], ["self", "timeout_s"])  # a blocking wait cannot be cancelled from outside
    assert asynchronous | {"events": bounded} == blocking | {"events": bounded}


def test_every_public_name_is_documented() -> None:
    reference = (ROOT / "docs/reference/sdk.md").read_text()
    assert [name for name in PUBLIC if not re.search(rf"`{name}\b", reference)] == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_events_may_be_cut_anywhere(size: int) -> None:
    raw = b": comment\r\n\r\n" + event(0, "queued") + event(1, "running", text="a\u2028b\x85").replace(b"\n", b"\r\n")
    raw += b'id: 2\rdata: {\rdata: "seq": 2, "type": "settled"}\r\r'
    parser = EventParser()
    events = [e for at in range(0, len(raw), size) for e in parser.feed(raw[at : at + size])]
    assert [(e.seq, e.type, e.text) for e in events] == [
        (0, "queued", None), (1, "running", "a\u2028b\x85"), (2, "settled", None)
    ]  # fmt: skip
