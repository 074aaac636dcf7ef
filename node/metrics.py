"""Figures of a running node in the Prometheus text format: docs/reference/metrics.md.

Read from the counters of the parts when asked; nothing here counts. Labels are names of ours, never a peer's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from node.figures import Outcomes
from node.rpc.node import RpcNode
from node.transport_libp2p import Libp2pTransport

if TYPE_CHECKING:
    from node.node import Node

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labelled = Mapping[Any, float]
"""Values by their labels: tuples of strings."""


def exposition(node: Node) -> bytes:
    """All figures of a node."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(node))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Everything, in the order of the reference."""
        node = self._node
        transport = node.context.transport
        about = node.about()
        yield _gauge("node_info", "The program's version.", {(about["version"],): 1}, ["version"])
        yield _gauge("uptime_seconds", "Since the node started.", about["uptime_s"])
        if isinstance(transport, Libp2pTransport):
            yield from _transport(transport)
        if isinstance(node.rpc, RpcNode):
            yield from _rpc(node.rpc)
        yield from _gossip(node)
        yield from _reach(about["reach"])
        yield from _stores(node)


def _gauge(
    name: str, says: str, value: float | Labelled, labels: Iterable[str] = (), *, unit: str = ""
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"quorate_{name}", says, labels=list(labels), unit=unit)
    for names, each in _rows(value):
        family.add_metric(names, each)
    return family


def _counter(name: str, says: str, value: float | Labelled, labels: Iterable[str] = ()) -> CounterMetricFamily:
    family = CounterMetricFamily(f"quorate_{name}", says, labels=list(labels))
    for names, each in _rows(value):
        family.add_metric(names, each)
    return family


def _rows(value: float | Labelled) -> list[tuple[list[str], float]]:
    if isinstance(value, Mapping):
        return [(list(names), each) for names, each in sorted(value.items())]
    return [([], value)]


def _outcomes(name: str, what: str, label: str, found: Outcomes) -> Iterator[Metric]:
    yield _counter(name, f"{what}, by how they ended.", found.ended, [label, "outcome"])
    family = HistogramMetricFamily(f"quorate_{name}_seconds", f"How long {what.lower()} took.", labels=[label])
    for each, histogram in sorted(found.took.items()):
        family.add_metric([each], buckets=histogram.cumulated(), sum_value=histogram.total_s)
    yield family


def _one(found: Mapping[str, float]) -> Labelled:
    return {(name,): value for name, value in found.items()}


def _transport(transport: Libp2pTransport) -> Iterator[Metric]:
    connections, memory = transport.connections, transport.memory
    muxers = connections.muxers()
    yield _gauge("connections", "Connections that stand.", connections.standing(), ["direction", "path"])
    yield _counter("connections_opened", "Connections made so far.", connections.opened, ["direction", "path"])
    yield _counter("handshakes_refused", "Connections refused, by reason.", _one(transport.gate.refusals), ["reason"])
    yield _gauge("handshakes", "Handshakes of others under way.", transport.gate.handshakes.total())
    yield _gauge("streams", "Streams that are open.", sum(len(muxer.core.streams) for muxer in muxers))
    figures = connections.figures()
    yield _counter("yamux", "What peers did that was refused or cut off.", _one(figures), ["what"])
    moved_in, moved_out = connections.bytes_moved()
    yield _counter("network_bytes", "Bytes on the wire.", {("in",): moved_in, ("out",): moved_out}, ["direction"])
    yield _counter("channels", "Channels that peers opened.", _one(transport.channels), ["protocol"])
    memory.look()
    yield _gauge("held_bytes", "Bytes held for peers, in connections and calls.", memory.held)
    yield _gauge("held_bytes_max", "What they may come to.", memory.bytes_max)
    yield _counter("peers_shed", "Times a peer lost what it made us hold.", memory.times_shed)
    yield from _outcomes("dials", "Dials of one address", "kind", transport.dialler.figures)
    yield _gauge("peers_known", "Peers with an address.", _one(transport.book.figures()), ["which"])


def _rpc(rpc: RpcNode) -> Iterator[Metric]:
    made, answered = rpc.under_way()
    yield _gauge("calls_under_way", "Calls not ended yet.", {("made",): made, ("answered",): answered}, ["side"])
    yield from _outcomes("calls_made", "Calls made", "method", rpc.made)
    yield from _outcomes("calls_answered", "Calls answered", "method", rpc.answered)


def _gossip(node: Node) -> Iterator[Metric]:
    if node.gossip is not None:
        yield _gauge("gossip", "Counters and sizes of gossip.", _one(node.gossip.about()), ["what"])


def _reach(view: Mapping[str, object] | None) -> Iterator[Metric]:
    if view is None:
        return
    yield _gauge("nat", "The kind of NAT that this node is behind.", {(str(view["nat"]),): 1}, ["kind"])
    relaying = view["relaying"]
    if isinstance(relaying, Mapping):
        numbers = {name: value for name, value in relaying.items() if isinstance(value, int | float)}
        yield _gauge("relaying", "What this node does as a relay.", _one(numbers), ["what"])


def _stores(node: Node) -> Iterator[Metric]:
    ledger, slots = node.context.ledger, node.context.slots
    yield _gauge("balance_micro", "Our balance in micro-credits.", ledger.balance())
    yield _gauge("reserved_micro", "Of it reserved for open offers.", ledger.reserved())
    yield _gauge("ledger_height", "Entries of our own chain.", ledger.head())
    yield _gauge("ledger_authors", "Chains that are kept.", len(ledger.authors()))
    yield _gauge("dht_contacts", "Peers in the routing table.", len(node.dht.contacts()))
    yield _gauge("dht_records", "Records kept.", len(node.dht.core.shelf))
    operations = {name: node.replicas.operations(name) for name in node.replicas.namespaces}
    yield _gauge("shared_operations", "Operations kept of shared descriptions.", _one(operations), ["namespace"])
    yield _counter("peer_faults", "Faults of peers, of the last thousand that had any.", node.penalties.count)
    yield _gauge("work_load", "Jobs and audits in progress and in line, per slot.", slots.load)
    jobs = {"jobs": node.board.open_count(), "batches": node.batches.open_count()}
    yield _gauge("own_jobs_open", "Open jobs and batches of this node's user.", _one(jobs), ["which"])
