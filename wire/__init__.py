"""The foundation every other package stands on: identities, canonical bytes, signatures, seams, errors.

`wire` imports nothing of ours and does no I/O except for key files in `wire.keyfile`.
"""
