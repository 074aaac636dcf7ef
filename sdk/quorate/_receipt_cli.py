"""`python -m quorate.receipt FILE [--output FILE] [--json]`: verify a stored receipt and say what it proves."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from quorate.errors import InvalidReceipt
from quorate.receipt import Juror, ReceiptSummary, verify_receipt


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 valid, 1 not valid, 2 a file that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m quorate.receipt", description="Verify a receipt offline.")
    parser.add_argument("file", type=Path, help="the receipt")
    parser.add_argument("--output", type=Path, help="the answer's canonical bytes, to be compared with the receipt")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(arguments)
    try:
        raw = options.file.read_bytes()
        output = options.output.read_bytes() if options.output else None
    except OSError as exc:
        print(f"cannot read {exc.filename}: {exc.strerror}", file=sys.stderr)
        return 2
    try:
        summary = verify_receipt(raw, output=output)
    except InvalidReceipt as exc:
        print(
            json.dumps({"valid": False, "reason": exc.reason, "detail": str(exc)})
            if options.json
            else f"NOT VALID: {exc}"
        )
        return 1
    print(json.dumps({"valid": True, **summary.to_dict()}) if options.json else describe(summary))
    return 0


def describe(summary: ReceiptSummary) -> str:
    """A few lines for people; says what was checked and what was not."""
    said = {"accept": "accepted by its jury", "reject": "rejected by its jury", "unaudited": "audited by nobody"}
    bound = "the answer at hand is the one committed to" if summary.output_checked else "no answer was compared with it"
    return "\n".join([
        f"valid: job {summary.job[:16]}, {said[summary.verdict]}",
        f"  {summary.kind} with {summary.model}",
        f"  lane {summary.lane} ({summary.numeric}), fingerprint {summary.fingerprint}",
        f"  requester {summary.requester}",
        f"  worker    {summary.worker}",
        *(f"  juror     {_juror(juror)}" for juror in summary.jurors),
        f"  jury of {summary.jury_size}, {summary.replaced} passed over in the draw"
        + (f"; each recomputed {summary.spots} drawn parts of the run" if summary.spots else ""),
        f"  price {summary.price_micro} and {summary.fee_micro} per juror, in micro-credits",
        f"  output {summary.output[:16]}: {bound}",
    ])  # fmt: skip


def _juror(juror: Juror) -> str:
    distances = ", ".join(f"{name} {value:.3g}" for name, value in sorted(juror.distances.items()))
    return f"{juror.peer}: {juror.verdict}" + (f" ({distances})" if distances else "")
