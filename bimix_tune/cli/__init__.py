"""The command line: thin functions over the package, with tables and live progress."""


def main() -> None:
    """Entry point of ``bimix-tune``."""
    from bimix_tune.cli.app import main as run  # late: `training_benchmark` does without Optuna

    run()
