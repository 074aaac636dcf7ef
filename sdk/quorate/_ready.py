"""Type information of structs, built by one thread at a time.

msgspec (0.22) puts a struct's type information in place before it is complete; a thread that decodes the same struct
at that moment follows a null pointer and takes the process with it. Clients may be used from several threads.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

_BUILDING = threading.Lock()


@lru_cache(maxsize=256)
def _build(kind: object) -> None:
    with _BUILDING:
        msgspec.msgpack.Decoder(kind)


def ready(kind: type[T]) -> type[T]:
    """`kind`, once its type information is complete."""
    _build(cast(Any, kind))
    return kind
