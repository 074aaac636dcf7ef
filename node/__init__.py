"""The node: composition root, the real network, the job market, the local API and the command line."""
