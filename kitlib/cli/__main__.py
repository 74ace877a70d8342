"""`python -m kitlib.cli`: the `kit` command without its script."""

from kitlib.cli import main

main()
