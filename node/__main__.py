"""`python -m node` is the `quorate` command."""

from node.cli import main

main()
