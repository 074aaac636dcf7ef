"""What lets others in from the local network: a port that the router opens, and peers that find each other by mDNS."""
