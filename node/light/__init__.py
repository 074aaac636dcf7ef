"""Light peers: browsers that have jobs run in this node's name and check receipts themselves (docs/spec/light.md)."""
