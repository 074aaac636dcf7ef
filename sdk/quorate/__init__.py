"""Submit AI jobs to your own Quorate node, and verify its receipts without any node.

Start with `Client` (asynchronous) or `Client.sync()`. Names are loaded when they are first used, so importing this
package takes milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorate.client import Batch, Client, EventStream, Job
    from quorate.errors import (
        BadRequest,
        InsufficientCredit,
        InvalidReceipt,
        JobCancelled,
        JobError,
        JobFailed,
        JobTimeout,
        NodeBusy,
        NodeFault,
        NodeUnreachable,
        NoProvider,
        NotFound,
        QuorateError,
        Unaudited,
        Unauthorized,
        VerificationFailed,
    )
    from quorate.kinds import Embed, Image, Request, Text
    from quorate.outputs import EmbeddingOutput, ImageOutput, Output, TextOutput
    from quorate.receipt import Juror, Receipt, ReceiptSummary, verify_receipt
    from quorate.results import BatchResult, ItemResult, Result
    from quorate.sync import SyncBatch, SyncClient, SyncEventStream, SyncJob
    from quorate.views import (
        Attempt,
        Audit,
        BatchItemView,
        BatchView,
        Connection,
        Event,
        JobView,
        JurorView,
        Ledger,
        Model,
        Node,
        Peer,
        PeerPenalties,
        PeerRecord,
        Ranked,
    )

__version__ = "0.1.0"

_HOME = {
    "client": ["Batch", "Client", "EventStream", "Job"],
    "errors": [
        "BadRequest",
        "InsufficientCredit",
        "InvalidReceipt",
        "JobCancelled",
        "JobError",
        "JobFailed",
        "JobTimeout",
        "NoProvider",
        "NodeBusy",
        "NodeFault",
        "NodeUnreachable",
        "NotFound",
        "QuorateError",
        "Unaudited",
        "Unauthorized",
        "VerificationFailed",
    ],
    "kinds": ["Embed", "Image", "Request", "Text"],
    "outputs": ["EmbeddingOutput", "ImageOutput", "Output", "TextOutput"],
    "receipt": ["Juror", "Receipt", "ReceiptSummary", "verify_receipt"],
    "results": ["BatchResult", "ItemResult", "Result"],
    "sync": ["SyncBatch", "SyncClient", "SyncEventStream", "SyncJob"],
    "views": [
        "Attempt",
        "Audit",
        "BatchItemView",
        "BatchView",
        "Connection",
        "Event",
        "JobView",
        "JurorView",
        "Ledger",
        "Model",
        "Node",
        "Peer",
        "PeerPenalties",
        "PeerRecord",
        "Ranked",
    ],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'quorate' has no attribute {name!r}")
    value = getattr(import_module(f"quorate.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
