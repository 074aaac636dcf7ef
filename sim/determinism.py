"""Making trio's scheduler repeat itself: the only file that touches trio's private names.

trio runs the tasks of one scheduler pass in random order on purpose. With deterministic scheduling allowed and
its generator seeded, the order depends on the seed alone (trio issues 2675 and 3089 ask for a public way). A
test asserts that one seed gives one trace in processes with different `PYTHONHASHSEED`s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import trio


@contextmanager
def deterministic_scheduling(seed: int) -> Iterator[None]:
    """Within this scope trio schedules by `seed`; afterwards as before."""
    run = cast(Any, trio)._core._run
    allowed, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = allowed
        run._r.setstate(state)
