"""Huge pages, which the lean trainer asks for and its contender does not, in one process.

PyTorch reads `bimix_tune.training.device.HUGE_PAGES` once for a process; whether Linux then gives
huge pages can be changed at any time.
"""

from __future__ import annotations

import ctypes
import sys

_PR_SET_THP_DISABLE = 41
"""Of Linux's ``prctl.h``; see ``man 2const PR_SET_THP_DISABLE``."""


def huge_pages(given: bool) -> None:
    """Let this process get huge pages where it asks for them, or not; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, int(not given), 0, 0, 0)
