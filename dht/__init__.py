"""Kademlia on the Transport seam: a routing table, iterative look-ups, and signed records that expire.

Source: Maymounkov and Mazieres, "Kademlia: A Peer-to-Peer Information System Based on the XOR Metric", 2002.
"""
