"""`python -m bedside.service`: the command `bedside`, for processes that start one of its commands."""

from bedside.service.cli import main

main()
