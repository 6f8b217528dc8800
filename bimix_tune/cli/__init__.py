"""The command line: thin functions over the package, with tables and live progress."""

from bimix_tune.cli.app import main

__all__ = ["main"]
