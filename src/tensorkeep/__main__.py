"""`python -m tensorkeep`: the command line."""

from tensorkeep.cli import main

main()
