"""Who could do and check a job: providers from the DHT and from fresh ads, in the order and with the weights of our own
view of trust.

Fresh ads say what a worker's load is now, and spare most look-ups while there are enough of them. They never replace
what the DHT says for long: it is asked all the same, only less often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import trio

from dht.provider import ProviderAd
from dht.service import Dht
from node.ads import Ads
from node.jobs import Request
from node.market import pricing
from node.market.context import Context
from node.trust import Trust
from recommend.rank import Candidate, Choice
from verify import jury
from wire import codec
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.job import INPUTS, PoolMember
from wire.limits import JURY_POOL_MAX
from wire.peer import PeerId, to_text

POLL_S = 0.25
FRESH_S = 5.0
"""Seconds for which a finding is used again; never one with too few peers for the usual jury."""

SPARED_S = 60.0
"""The same while fresh ads alone name enough peers for the usual jury."""

JURORS_USUAL = 3

SPARE = 2
"""Peers per seat that a pool keeps, whoever belongs to the worker: without them nobody could replace a silent juror."""


@dataclass(frozen=True)
class Offered:
    """Peers for one attempt: workers in the order in which to ask them, and all who may judge, with their weights.

    `prices_micro` is for all that is asked for; `ejected` are the peers that their record rules out as workers.
    """

    workers: Sequence[Choice]
    prices_micro: dict[PeerId, int]
    weights: dict[PeerId, int]
    ejected: tuple[PeerId, ...] = ()


@dataclass(frozen=True)
class Pool:
    """The jury pool of one attempt, as the spec fixes it, and who was left out of it because of the worker, and why."""

    members: list[PoolMember]
    left_out: dict[PeerId, str]


class NotEnough(Exception):
    """Too few providers; the message says how many were found and needed."""


class Finder:
    """Looks for providers of a model."""

    def __init__(self, context: Context, dht: Dht, trust: Trust, ads: Ads) -> None:
        self._context = context
        self._dht = dht
        self._ads = ads
        self._trust = trust
        self._found: dict[str, tuple[float, dict[PeerId, ProviderAd]]] = {}

    async def providers(self, cid: str) -> dict[PeerId, ProviderAd]:
        """Other peers that offer the model; their addresses and keys are learned on the way.

        What was found less than `FRESH_S` ago (`SPARED_S` with enough fresh ads) is not looked up again: an ad lives
        for minutes, and a peer that has gone since is passed over like any other that does not answer. Of two ads of
        a peer the fresh one counts.
        """
        fresh = self._usable(self._ads.fresh(cid, self._context.now_ms()))
        at, known = self._found.get(cid, (float("-inf"), {}))
        age_s = trio.current_time() - at
        if age_s >= (SPARED_S if len(fresh) > JURORS_USUAL else FRESH_S):
            known = self._usable(dict(await self._dht.providers(cid)))
            if len(known) > JURORS_USUAL:
                self._found[cid] = trio.current_time(), known
        return {**known, **fresh}

    def _usable(self, ads: Mapping[PeerId, ProviderAd]) -> dict[PeerId, ProviderAd]:
        """Those of others whose keys are in order; keys and addresses are remembered."""
        found: dict[PeerId, ProviderAd] = {}
        for peer, ad in ads.items():
            if peer == self._context.identity.peer:
                continue
            try:
                self._context.keyring.learn(codec.decode(Envelope, ad.key_record, bytes_max=1024), author=peer)
            except Malformed:
                continue
            self._context.transport.learn(peer, ad.addresses)
            found[peer] = ad
        return found

    async def enough(self, request: Request, tried: set[PeerId]) -> Offered:
        """Look until there are a fresh worker and a whole jury besides, for at most `discovery_s`.

        Raises:
            NotEnough: there are not.
        """
        offered: Offered | None = None
        ads: dict[PeerId, ProviderAd] = {}
        with trio.move_on_after(self._context.settings.discovery_s):
            while True:
                found = await self.providers(request.model)
                liars = self._context.ledger.forkers() | self._context.keyring.two_faced().keys()
                ads = {p: ad for p, ad in found.items() if request.lane in ad.lanes and p not in liars}
                offered = self._offered(request, ads, tried)
                if offered.workers and len(offered.weights) > request.jury_size:
                    return offered
                await trio.sleep(POLL_S)
        need = f"a worker and {request.jury_size} jurors"
        spent = f"; {len(tried)} already tried" if tried else ""
        if offered is not None and offered.ejected:
            spent += f"; {len(offered.ejected)} ejected by what audits found"
        raise NotEnough(f"this job needs {need}, each another peer; {len(ads)} peers offer the model{spent}")

    def _offered(self, request: Request, ads: dict[PeerId, ProviderAd], tried: set[PeerId]) -> Offered:
        size = sum(pricing.units(codec.decode(INPUTS[request.kind], raw)) for raw in request.each_input)
        prices = {peer: ad.price_micro * size for peer, ad in ads.items()}
        records, model = self._context.records, request.model
        out = [peer for peer in sorted(ads) if records.ejected("worker", peer, model)]
        fresh = [Candidate(peer, prices[peer], ads[peer].load) for peer in ads if peer not in {*tried, *out}]
        recommender, me = self._trust.fresh(), self._context.identity.peer
        shortlist = recommender.choose_worker(me, fresh)
        weights = recommender.pool_weights(me, [peer for peer in ads if not records.ejected("juror", peer, model)])
        workers = [replace(choice, reason=self._why(choice, model, out)) for choice in shortlist.order]
        return Offered(workers, prices, weights, tuple(out))

    def _why(self, choice: Choice, model: str, out: Sequence[PeerId]) -> str:
        """The reason for a choice, with the peer's record, and whom its record rules out."""
        records = self._context.records
        standing = records.standing("worker", choice.peer, model)
        told = [choice.reason, "never audited" if standing is None else str(standing)]
        told += [f"not asked: {to_text(peer)[-8:]}, {records.standing('worker', peer, model)}" for peer in out]
        return "; ".join(told)

    def pool(self, offered: Offered, worker: PeerId, jury_size: int) -> Pool:
        """Who may judge this worker's answer: the heaviest peers, without those who belong to the worker.

        Args:
            offered: from `enough`. worker: the one chosen of it.
            jury_size: of the largest jury that is drawn from this pool; twice as many peers stay in it, if there are.
        """
        weights, me = offered.weights, self._context.identity.peer
        left_out = self._trust.fresh().cluster(me, worker, weights, keep=SPARE * jury_size)
        heaviest = sorted(weights.keys() - left_out.keys(), key=lambda peer: (-weights[peer], peer))[:JURY_POOL_MAX]
        return Pool(jury.pool_of({peer: weights[peer] for peer in heaviest}), left_out)
