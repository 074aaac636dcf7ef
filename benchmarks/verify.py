"""All figures of checking: `python -m benchmarks.verify [--quick]` runs each part below, one after the other.

Each part is a process of its own, because some fix the number of threads before NumPy is imported. Without `--quick`
the detection tables take hours; the parts can be run by themselves.
"""

from __future__ import annotations

import subprocess
import sys

PARTS = ("verify_lsh", "verify_prints", "verify_images", "verify_audits", "verify_juries", "verify_detection")


def main(options: list[str]) -> int:
    """Run every part with these options; 1 if one failed, after the others have run."""
    failed = [
        part for part in PARTS if subprocess.run([sys.executable, "-m", f"benchmarks.{part}", *options]).returncode
    ]
    for part in failed:
        print(f"benchmarks.{part} failed", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
