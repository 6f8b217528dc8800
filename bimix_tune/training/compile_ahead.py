"""Compiling a loss into a cache that all workers of a machine share, in a process apart.

PyTorch's compiler keeps what it makes in a folder, under a hash of everything that it depends
on; a process that compiles the same thing again only reads it. Here that folder lies under the
user's own cache (what is loaded from it runs, so no one else may write it), one for each kind
of processor. ``python -m bimix_tune.training.compile_ahead '<json of a Compilation>'`` fills it
and, when all is there, writes a small file that says so.

A lock of the operating system, which ends with its holder, lets one process compile one thing;
PyTorch writes each of its files in one step. So a process that is killed leaves nothing half.
"""

from __future__ import annotations

import copyreg
import fcntl
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimix_tune.atomic import write_atomic
from bimix_tune.errors import one_line
from bimix_tune.training.sizes import Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bimix_tune.training.evaluate import Loss
    from bimix_tune.training.model import Llama

CACHE = "TORCHINDUCTOR_CACHE_DIR"
LONGEST = 1800
"""Seconds after which a process that compiles is ended."""
LONGEST_REASON = 200
"""Characters of the compiler's error that are kept: it may go on for pages."""
NICE = 5
"""Priority of that process: beside a training on the same core it gets a quarter of it. At 19 it
would get a seventieth, and be ready when all is over; what it takes in all is the same."""
SOURCES = ("model.py", "stacked.py", "cross_entropy.py", "kept.py", "memory.py")
"""What is compiled, and what decides its form."""
SHAPES = 64
"""Shapes of batches and models that one process may load; PyTorch's own limit is 8."""


def use_cache_folder() -> Path:
    """Make PyTorch's compiler keep its results in the shared folder, and return it.

    A folder that the user has chosen by PyTorch's environment variable stays.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "bimix-tune" / "compiled" / _processor()
    return Path(os.environ.setdefault(CACHE, str(folder)))


def _processor() -> str:
    """A name for the kind of processor: code for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [f"flags {platform.processor()}"]
    kind = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return f"{platform.machine()}-{hashlib.sha256(repr(kind).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Compilation:
    """What is compiled: the loss of one model, or of several at once, at one shape of batch.

    Args:
        shape: Of the model.
        vocabulary: Number of tokens.
        dtype: Type of the products, such as ``"bfloat16"``.
        device: ``"cpu"`` or ``"cuda"``.
        batch: Sequences, of each model.
        length: Tokens of a sequence.
        members: Number of models; more than one are a `StackedLlama`.
    """

    shape: Shape
    vocabulary: int
    dtype: str
    device: str
    batch: int
    length: int
    members: int = 1

    @classmethod
    def of(cls, module: Llama, inputs: Tensor) -> Compilation:
        """The one that a model needs for such inputs, (B, S), or (K, B, S) of several."""
        dtype = str(module.dtype).removeprefix("torch.")
        vocabulary, (batch, length) = module.lm_head.out_features, inputs.shape[-2:]
        return cls(
            module.shape, vocabulary, dtype, inputs.device.type, batch, length, module.members
        )

    def module(self, device: str | torch.device) -> Any:
        """A model of that form, whose weights mean nothing."""
        import torch

        from bimix_tune.training.model import Llama
        from bimix_tune.training.stacked import StackedLlama

        form = (self.shape, self.vocabulary, getattr(torch, self.dtype))
        module = Llama(*form) if self.members == 1 else StackedLlama(*form, self.members)
        return module.to(device)

    @cached_property
    def key(self) -> str:
        """A hash of this, of the code that is compiled, and of PyTorch's version."""
        sources = [Path(__file__).with_name(name) for name in SOURCES]
        parts = [version("torch"), repr(self), *(path.read_text("utf-8") for path in sources)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

    @cached_property
    def path(self) -> Path:
        """The file that says how compiling ended."""
        return use_cache_folder() / "bimix-tune" / f"{self.key}.json"

    def load(self, module: Llama) -> Loss:
        """Compile the loss of a model, or read it where that has been done before.

        Returns:
            The loss, with and without gradient, for inputs and labels of (batch, length), with a
            leading axis of members if there are several; on a GPU its kernels are launched as
            one CUDA graph.
        """
        import torch

        from bimix_tune.training.cross_entropy import fits, for_a_compiler, in_place

        parameters = list(module.parameters())
        device = parameters[0].device
        several = () if self.members == 1 else (self.members,)
        shape = (*several, self.batch, self.length)
        tokens = torch.zeros(shape, dtype=torch.int64, device=device)
        labels = tokens.clone()  # one tensor in both places would be another program
        angles = module.angles(tokens)
        whole = self.members > 1 or fits(tokens.numel(), module.lm_head.weight, module.dtype)
        fused = partial(
            torch.compile, fullgraph=True, dynamic=False, options={"compile_threads": 1}
        )
        compiled = fused(type(module).loss_with_angles if whole else type(module).decoded)
        of_part = fused(for_a_compiler) if device.type == "cuda" else in_place

        def loss(inputs: Tensor, labels: Tensor) -> Tensor:
            if whole:
                return compiled(module, inputs, labels, *angles)
            x = module.embedded(inputs)
            return module.loss_of(compiled(module, x, *angles), labels, of_part)

        with (
            equal_hashes(),
            warnings.catch_warnings(),
            torch._dynamo.config.patch(recompile_limit=SHAPES),
        ):
            warnings.simplefilter("ignore")  # PyTorch's compiler warns of its own old parts
            with torch.no_grad():
                loss(tokens, labels)
            with torch.enable_grad():
                torch.autograd.grad(loss(tokens, labels).sum(), parameters)
        if device.type == "cuda":
            from bimix_tune.training.cuda_graph import graphed

            return graphed(module, loss, tokens)
        return loss


@contextmanager
def equal_hashes() -> Iterator[None]:
    """Let PyTorch find in one process what it has compiled in another.

    Its hash of a program pickles ``torch.contiguous_format``, which does not say where it lives,
    so pickle writes the first module of ``sys.modules`` that has imported torch: another one in
    each program. In this block its name is written instead.
    """
    import torch

    copyreg.dispatch_table[torch.memory_format] = _as_named
    try:
        yield
    finally:
        del copyreg.dispatch_table[torch.memory_format]


def _as_named(memory_format: Any) -> tuple[Any, ...]:
    return str, (str(memory_format),)


def outcome(unit: Compilation) -> dict[str, Any] | None:
    """How compiling ended, ``{"error": text or None}``, or None as long as it has not."""
    try:
        return dict(json.loads(unit.path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def ask_for(unit: Compilation) -> None:
    """Start a process that compiles, unless one does so already.

    It goes on when this process ends: the next run will be glad of it.
    """
    subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(asdict(unit))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether this process alone holds the lock of that path; it is not waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def compile_now(unit: Compilation) -> None:
    """Fill the cache and write the outcome, unless there is no memory now: that is not for ever."""
    import torch

    if unit.device == "cpu":
        torch.set_num_threads(1)  # code depends on it; see `device.one_thread`
    error = None
    try:
        unit.load(unit.module(unit.device))
    except torch.OutOfMemoryError:  # of a GPU that is full of trainings
        return
    except RuntimeError as reason:  # the compiler's own; a full disk, say, is not for ever
        error = one_line(reason, LONGEST_REASON)
    write_atomic(unit.path, json.dumps({"error": error}))


def main(text: str) -> None:
    """Compile in a process of its own, behind the back of the one that asked."""
    values = json.loads(text)
    unit = Compilation(Shape(**values.pop("shape")), **values)
    with _lock(unit.path.with_suffix(".lock")) as alone:
        if not alone or unit.path.exists() or os.fork():
            return
        os.setsid()
        os.nice(NICE)
        signal.alarm(LONGEST)
        compile_now(unit)


if __name__ == "__main__":
    main(sys.argv[1])
