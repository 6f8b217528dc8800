"""Writing a file so that neither a reader nor a crash ever meets half of it."""

import os
from pathlib import Path
from uuid import uuid4


def write_atomic(path: Path, text: str) -> None:
    """Replace a file in one step.

    The text is on disk before it takes the name, and the temporary name is unique, so that
    threads, processes and hosts on one file system may write at once; the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
