"""Whether an answer is right: commitment, fingerprints, calibrated thresholds, a drawn jury, votes and receipts.

Everything here is sans-IO: no socket, clock, random source, file or log. `verify.round` is the requester's side,
`verify.juror` the juror's, `verify.receipt` anybody's.
"""
