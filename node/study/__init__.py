"""`quorate study consensus`: a generated data set, and how well near-equality of outputs tells honest work from other.

`batches` runs the embedded models many jobs at a time, `dataset` writes what they give in chunks that survive a stop,
`tables` counts, `plots` draws, `run` puts it together.
"""
