"""Everything that runs a model: the Executor seam, three embedded executors, and the pool of child processes.

`executor` holds the seam, `service` (trio) the pool; a node imports only these two and `catalog`, none of which
loads NumPy or ONNX Runtime. The work is done in the child (`python -m workloads`).
"""
