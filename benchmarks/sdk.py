"""`python -m benchmarks.sdk [--quick]`: what the SDK costs to import, and a receipt to verify, as JSON lines."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.line import show
from quorate._bls import Arkworks, Reference
from quorate.receipt import verify_receipt
from tests.sdk.receipts import ACCEPTED, PATH

ROOT = PATH.parents[2]


def import_s(code: str, repeats: int) -> float:
    """Median seconds that a fresh interpreter spends on `code`, its own start left out."""
    program = f"import time; t = time.perf_counter()\n{code}\nprint(time.perf_counter() - t)"
    runs = (
        subprocess.run([sys.executable, "-c", program], cwd=ROOT / "sdk", capture_output=True, text=True, check=True)
        for _ in range(repeats)
    )
    return statistics.median(float(done.stdout) for done in runs)


def main() -> None:
    """Print the lines; `--quick` ends within a few seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    repeats = 3 if parser.parse_args().quick else 9
    show("sdk.import_s", import_s("import quorate", repeats), "s", better="lower")
    show(
        "sdk.client_s",
        import_s("import quorate; quorate.Client.sync('http://[::1]:1', 't').http", repeats),
        "s",
        better="lower",
    )
    for name, backend in (("sdk.receipt_ms.arkworks", Arkworks()), ("sdk.receipt_ms.py_ecc", Reference())):
        verify_receipt(ACCEPTED, bls=backend)
        start = time.perf_counter()
        for _ in range(repeats):
            verify_receipt(ACCEPTED, bls=backend)
        show(name, 1e3 * (time.perf_counter() - start) / repeats, "ms", better="lower")


if __name__ == "__main__":
    main()
