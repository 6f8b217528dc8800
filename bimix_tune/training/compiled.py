"""A loss that starts eager and becomes compiled where that pays.

PyTorch's compiler makes a step about a quarter faster on a CPU, but takes half a minute of a
core to do so. Hence a run starts eager, and times itself. Where it has long to go, a process of
low priority compiles the same loss into a cache on disk, once for all workers and later runs of
the machine; when that cache is whole, the run loads it (seconds) and goes on compiled. What
goes wrong on the way leaves the run eager and a note of the reason.

The compiled loss takes one shape of batch and never compiles another; other shapes run eagerly.
Both agree to rounding: in bfloat16 their losses differ by a few 1e-4 of their value.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from bimix_tune.errors import one_line
from bimix_tune.training.compile_ahead import (
    LONGEST_REASON,
    Compilation,
    ask_for,
    outcome,
    use_cache_folder,
)
from bimix_tune.training.evaluate import Loss
from bimix_tune.training.model import Llama

WATCH = 1.0
"""Seconds of training from which the rest is estimated."""
WORTH_LOADING = 15.0
"""Seconds to go from which loading pays: it takes about 3 and saves a fifth."""
WORTH_COMPILING = 60.0
"""Seconds to go from which compiling pays. It takes about 40 s of a core once; a run of a minute
saves a fifth of that, so five such runs pay it back, and a search has more."""

_loaded: set[str] = set()
"""Keys of what this process has loaded already."""
_logger = logging.getLogger(__name__)


class SwitchingLoss:
    """`Llama.loss`, eager at first and compiled later.

    Args:
        module: The model.
        when: ``"auto"`` switches where it pays, ``"always"`` compiles before the first step,
            ``"never"`` stays eager.
        calls: Calls with gradient in the whole run.
        notes: Where to record when it switched, or why not, under ``"compiled"``.
    """

    def __init__(
        self, module: Llama, when: str, calls: int, notes: dict[str, str | float | int]
    ) -> None:
        self._module, self._when, self._calls, self._notes = module, when, calls, notes
        self._compilation: Compilation | None = None
        self._compiled: Loss | None = None
        self._asked, self._done, self._began = False, 0, 0.0
        self._stay_eager("the option says never" if when == "never" else "the run is short")
        self._decided = when == "never"

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over all tokens; inputs and labels (B, S)."""
        if not self._decided and torch.is_grad_enabled():
            self._consider(inputs)
        if self._compiled is not None and self._fits(inputs):
            return self._compiled(inputs.contiguous(), labels.contiguous())
        return self._module.loss(inputs, labels)

    def expect(self, calls: int) -> None:
        """At least so many calls with gradient are still to come."""
        self._calls = max(self._calls, self._done + calls)

    def _fits(self, inputs: Tensor) -> bool:
        unit = self._compilation
        return unit is not None and tuple(inputs.shape[-2:]) == (unit.batch, unit.length)

    def _consider(self, inputs: Tensor) -> None:
        """Load, or have compiled, what this run needs, if there is time to gain."""
        if self._compilation is None:
            self._compilation = Compilation.of(self._module, inputs)
            self._began = time.monotonic()
        try:
            self._act(self._compilation)
        except Exception as error:  # an eager run is slower, a failed one is lost
            self._decided = True
            self._stay_eager(one_line(error, LONGEST_REASON))
            _logger.warning("the training goes on without compilation", exc_info=True)
        self._done += 1

    def _act(self, unit: Compilation) -> None:
        if self._when == "always" or unit.key in _loaded:
            self._load(unit)
            return
        seconds = time.monotonic() - self._began
        if self._done == 0 or seconds < WATCH:
            return
        left = seconds / self._done * (self._calls - self._done)
        result = outcome(unit) if left > WORTH_LOADING else None
        if result is not None and result["error"] is None:
            self._load(unit)
        elif result is not None:
            self._decided = True
            self._stay_eager(f"{result['error']} (delete {unit.path} to try again)")
        elif left > WORTH_COMPILING and not self._asked:
            self._asked = True
            self._stay_eager("it was not ready in time")
            ask_for(unit)

    def _load(self, unit: Compilation) -> None:
        use_cache_folder()
        self._compiled = unit.load(self._module)
        self._decided = True
        _loaded.add(unit.key)
        tokens = self._done * unit.batch * unit.length
        self._notes["compiled"] = f"after {tokens} tokens" if tokens else "from the first step"

    def _stay_eager(self, reason: str) -> None:
        self._notes["compiled"] = f"no: {reason}"
