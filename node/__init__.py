"""The composition root: libp2p, configuration, the job market, the local API and the command line."""
