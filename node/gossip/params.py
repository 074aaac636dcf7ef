"""Every number of the gossip protocol, with its unit. Names are those of the gossipsub specification, v1.0 and v1.1."""

from __future__ import annotations

from dataclasses import dataclass, field

PROTOCOL = "/meshsub/1.1.0"

DATA_BYTES_MAX = 4096
"""Longest body of a message: digests, never the things themselves."""

MESSAGE_BYTES_MAX = DATA_BYTES_MAX + 512
"""Longest message with its author, topic, signature and key."""

RPC_BYTES_MAX = 128 << 10
"""Longest RPC that is taken from a peer."""

RPC_SENT_BYTES = 32 << 10
"""Where an RPC of our own ends and the next begins."""

TOPIC_BYTES_MAX = 128
ID_BYTES_MAX = 128
PUBLISH_MAX = 256
SUBSCRIPTIONS_MAX = 128
CONTROLS_MAX = 128
IDS_MAX = 4096
"""Message ids in one RPC, all IHAVE and IWANT together."""

PEER_TOPICS_MAX = 64
"""Subscriptions of one peer that are remembered."""

PEERS_MAX = 1024


@dataclass(frozen=True)
class ScoreParams:
    """Weights and thresholds of peer scoring; a score below a threshold costs the peer what the name says."""

    gossip_threshold: float = -20.0
    publish_threshold: float = -40.0
    graylist_threshold: float = -80.0
    opportunistic_threshold: float = 1.0

    mesh_time_weight: float = 0.01  # per second in the mesh
    mesh_time_cap: float = 2.0
    first_weight: float = 0.2  # per message that a peer brought first
    first_cap: float = 6.0
    deficit_weight: float = -8.0  # times the square of the missing share
    deficit_share: float = 0.05  # of the messages that passed while a peer was in the mesh, it must bring so many
    deficit_least: float = 20.0  # ... once so many have passed
    failure_weight: float = -8.0
    invalid_weight: float = -10.0  # times the square of the count
    topic_score_cap: float = 10.0

    behaviour_weight: float = -5.0
    behaviour_free: float = 6.0
    blame_weight: float = -100.0  # times the square of the penalties of `RemoteError`s, added up
    group_weight: float = -5.0
    group_free: int = 8  # peers of one address that cost nothing

    traffic_half_s: float = 60.0  # half-lives of the counters
    failure_half_s: float = 300.0
    invalid_half_s: float = 600.0
    behaviour_half_s: float = 30.0
    blame_half_s: float = 900.0
    zero: float = 0.01  # below it a counter is 0
    retain_s: float = 3600.0  # a bad score outlives the connection
    retained_max: int = 4096


@dataclass(frozen=True)
class Params:
    """Of the router."""

    d: int = 6
    d_lo: int = 5
    d_hi: int = 12
    d_score: int = 4
    d_out: int = 2
    d_lazy: int = 6
    gossip_factor: float = 0.25
    heartbeat_s: float = 1.0
    history_length: int = 5
    history_gossip: int = 3
    flood_publish: bool = True
    fanout_ttl_s: float = 60.0
    prune_backoff_s: float = 60.0
    unsubscribe_backoff_s: float = 10.0
    backoff_max_s: float = 3600.0
    backoffs_max: int = 8192
    graft_flood_s: float = 10.0
    opportunistic_ticks: int = 60
    opportunistic_peers: int = 2

    seen_s: float = 120.0
    seen_max: int = 65536
    authors_max: int = 8192
    held_messages_max: int = 4096
    held_bytes_max: int = 8 << 20
    pending_max: int = 1024
    pending_per_peer_max: int = 256
    delivery_window_s: float = 2.0

    ihave_per_heartbeat_max: int = 10
    ihave_ids_max: int = 1000
    iwant_ids_max: int = 24  # what a peer sends for them fits one RPC
    iwant_followup_s: float = 3.0
    iwant_askers_max: int = 2
    retransmissions_max: int = 3
    promises_max: int = 4096

    outbox_bytes_max: int = 256 << 10  # to one peer
    outboxes_bytes_max: int = 16 << 20  # to all
    intake_rate: float = 200.0  # messages a second from one peer that are looked at
    intake_burst: float = 400.0

    scores: ScoreParams = field(default_factory=ScoreParams)


@dataclass(frozen=True)
class TopicParams:
    """Of one topic.

    Args:
        rate: messages a second of one author that are relayed.
        burst: messages of one author that are relayed at once.
        ordered: authors number their messages upwards, so that an old one cannot be replayed for ever.
    """

    rate: float = 1.0
    burst: float = 10.0
    ordered: bool = True
