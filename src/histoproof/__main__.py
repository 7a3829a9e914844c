"""`python -m histoproof`: the same program as `histoproof`."""

from .cli import main

main()
