"""`python -m gateway`: the same as the `penstock` command."""

from gateway.cli import main

main()
