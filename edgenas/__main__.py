"""`python -m edgenas` is the same as `edgenas`."""

from edgenas.cli import main

main()
