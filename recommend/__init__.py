"""Whom to trust, as each peer sees it: MeritRank over the signed experience of peers, with reasons.

Pure: no clock, socket, file or global random source. The same edges and the same seed give the same view.
"""
