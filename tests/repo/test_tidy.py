"""The house rules that no linter knows, each a ratchet without waivers beyond the lists here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.repo.project import ROOT, Source, dotted, files, shipped, sources

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

SHELLS = (
    "node/",  # the composition root: it owns the clock, the sockets and the log
    "sdk/quorate/",  # a client of the node; its verifier is pure, see below
    "workloads/train/",  # scripts that made the models
    "sim/__main__.py",  # replays a seed and prints it
    "sim/determinism.py",  # puts trio's own generator under the seed
    "wire/keyfile.py",  # salts and temporary names
    "ledger/group.py",  # with `view.py`, parts of the ledger's service
    "ledger/view.py",
)
SHELL_NAMES = ("service.py", "store.py", "__main__.py")
GENERATORS = {"wire/identity.py": {"secrets.token_bytes"}}
"""Cores that may call one source of chance: making a new identity."""

PURE_IN_THE_SDK = (
    "receipt.py",
    "_bls.py",
    "_canonical.py",
    "_draw.py",
    "_structs.py",
    "outputs.py",
    "results.py",
    "views.py",
)

IMPURE_MODULES = ("time", "random", "secrets", "uuid", "logging", "structlog", "socket", "tempfile", "subprocess")
IMPURE_CALLS = {"os.urandom", "os.getpid", "os.times", "input", "print", "open"}
IMPURE_ENDINGS = (".now", ".utcnow", ".today")
SEEDED = {"random.Random", "numpy.random.Generator", "numpy.random.Philox", "numpy.random.SeedSequence"}

SUPERVISORS = {
    "wire/serving.py": "sorts a handler's errors by whose fault they are",
    "sim/__main__.py": "prints the seed and trace of whatever failed",
    "sim/world.py": "keeps a simulated node's failure with its world, and raises it there",
    "ledger/store.py": "rolls back, and raises again",
    "node/webrtc/connection.py": "ends one connection, and tells the node why",
}
"""The only places that may catch everything, and why. A place that no longer does must leave the list."""


def _core(source: Source) -> bool:
    name = source.path.rsplit("/", 1)[-1]
    if source.path.startswith("sdk/quorate/"):
        return name in PURE_IN_THE_SDK
    return name not in SHELL_NAMES and not source.path.startswith(SHELLS)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `np` is `numpy`, `sleep` is `time.sleep`."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                known[name.asname or name.name.split(".")[0]] = name.name if name.asname else name.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                known[name.asname or name.name] = f"{node.module}.{name.name}"
    return known


def _impure(source: Source) -> Iterator[str]:
    known = _aliases(source.tree)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Name | ast.Attribute):
            continue
        head, _, rest = dotted(node).partition(".")
        name = known.get(head, head) + ("." + rest if rest else "")
        if name in SEEDED or name in GENERATORS.get(source.path, ()):
            continue
        stray = name.startswith("numpy.random.") or (
            name.split(".")[0] in IMPURE_MODULES and "." in name and head in known
        )
        if stray or name in IMPURE_CALLS or (name.startswith("datetime.") and name.endswith(IMPURE_ENDINGS)):
            yield f"{source.path}:{node.lineno} {name}"


def test_cores_know_no_clock_no_chance_and_no_log() -> None:
    assert [found for source in shipped() if _core(source) for found in _impure(source)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import time\nx = time.monotonic()",
        "from time import time\nx = time()",
        "import random\nx = random.random()",
        "from random import choice as pick\nx = pick([1])",
        "import os\nx = os.urandom(3)",
        "from os import urandom\nx = urandom(3)",
        "import datetime\nx = datetime.datetime.now()",
        "from datetime import datetime as d\nx = d.utcnow()",
        "import secrets\nx = secrets.token_hex()",
        "import numpy as np\nx = np.random.default_rng()",
        "print(1)",
    ],
)
def test_the_rule_on_cores_sees(code: str) -> None:
    assert list(_impure(Source("verify/x.py", code, ast.parse(code)))) != []


def test_the_rule_on_cores_allows_a_seeded_generator() -> None:
    code = "import random\nimport numpy as np\nx = random.Random(1).random(), np.random.Generator(np.random.Philox(1))"
    assert list(_impure(Source("verify/x.py", code, ast.parse(code)))) == []


def test_the_lists_name_what_is_there() -> None:
    known = [source.path for source in sources()]
    named = [*SHELLS, *GENERATORS, *SUPERVISORS, *(f"sdk/quorate/{name}" for name in PURE_IN_THE_SDK)]
    assert [prefix for prefix in named if not any(path.startswith(prefix) for path in known)] == []


def test_files_stay_short() -> None:
    lengths = {source.path: source.text.count("\n") for source in sources()}
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_functions_stay_short() -> None:
    long = [
        f"{source.path}:{node.lineno} {node.name} {lines} lines"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert long == []


def _catches_all(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        caught = [node.type] if node.type is not None else []
        return node.type is None or _names_all(caught)
    return isinstance(node, ast.Call) and dotted(node.func).endswith("suppress") and _names_all(node.args)


def _names_all(kinds: list[ast.expr]) -> bool:
    flat = [leaf for kind in kinds for leaf in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
    return any(dotted(leaf).split(".")[-1] in ("Exception", "BaseException") for leaf in flat)


def test_only_supervisors_catch_everything() -> None:
    found = {source.path for source in shipped() for node in ast.walk(source.tree) if _catches_all(node)}
    assert found == set(SUPERVISORS)


def test_every_module_says_what_it_is() -> None:
    silent = [source.path for source in sources() if source.text.strip() and not ast.get_docstring(source.tree)]
    assert [path for path in silent if not path.endswith("conftest.py")] == []


def test_nothing_is_left_to_do() -> None:
    mark = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")
    found = [
        f"{source.path}:{number}"
        for source in sources()
        for number, line in enumerate(source.text.splitlines(), 1)
        if mark.search(line)
    ]
    assert found == []


def test_no_main_path_ends_in_a_stub() -> None:
    stubs = [
        f"{source.path}:{node.lineno}"
        for source in shipped()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc)
    ]
    assert stubs == []


def test_every_silenced_check_says_why() -> None:
    silenced = re.compile(r"#\s*(type: ignore(\[[^]]*\])?|noqa(: [A-Z0-9, ]+)?)(?P<why>.*)$")
    bare = [
        f"{source.path}:{number} {line.strip()}"
        for source in sources()
        for number, line in enumerate(source.text.splitlines(), 1)
        if (match := silenced.search(line)) and len(match["why"].strip(" #-:()")) < 5
    ]
    assert bare == []


def test_every_package_is_typed_and_checked() -> None:
    """`make check` runs mypy over packages by name; a folder of code that is none of them would go unchecked."""
    folders = {path.split("/")[0] for path in files() if path.endswith(".py") and "/" in path}
    known = {"wire", "sim", "workloads", "verify", "ledger", "crdt", "dht", "recommend", "node"}
    assert folders - known <= {"sdk", "tests", "benchmarks", "scripts"}
    assert known <= set(re.findall(r"\w+", (ROOT / "Makefile").read_text()))
