"""`python -m sidecar` is the program `sidecar`."""

from sidecar.cli import main

main()
