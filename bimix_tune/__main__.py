"""``python -m bimix_tune`` is ``bimix-tune``."""

from bimix_tune.cli import main

if __name__ == "__main__":
    main()
