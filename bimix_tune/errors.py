"""The errors a user can meet.

Each message names the thing, the rule and the value that broke it, and says how to mend it.
Everything derives from `BimixError`, so a caller (the command line, say) can catch what is
the user's to mend and let real defects through with their traceback.
"""

import difflib
from collections.abc import Iterable


class BimixError(Exception):
    """Base of every error that a user can mend."""


class MixtureError(BimixError, ValueError):
    """Proportions that are no mixture: off the simplex, wrong names, out of bounds."""


class SpaceError(BimixError, ValueError):
    """A search space that contradicts itself or cannot be found."""


class CurveError(BimixError, ValueError):
    """A loss curve whose arrays disagree, or a file of runs that cannot be read."""


class FitError(BimixError, ValueError):
    """A law cannot be fitted to the curves given."""


class CorpusError(BimixError, ValueError):
    """Text or tokens that are missing, empty or too small."""


class ConfigError(BimixError, ValueError):
    """A run file with a wrong key or value."""


class TrainingError(BimixError, RuntimeError):
    """A proxy run that cannot go on. The search records the cause and continues."""


class DivergedError(TrainingError):
    """A loss became NaN or infinite."""


class OutOfMemoryError(TrainingError):
    """A proxy does not fit into the memory of its device."""


class ExecutorError(BimixError, RuntimeError):
    """The machinery that runs trainings cannot start or has broken down."""


class MissingExtraError(BimixError, ImportError):
    """An optional library is needed."""


def missing_extra(library: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for an optional library that is not installed."""
    return MissingExtraError(
        f"{purpose} needs {library!r}, which is not installed: pip install 'bimix-tune[{extra}]'"
    )


def one_line(error: BaseException, longest: int | None = None) -> str:
    """The kind of an error and its message on one line.

    Args:
        error: The error.
        longest: Characters after which the line is cut; None keeps all.

    >>> one_line(ValueError("too\\n  long"))
    'ValueError: too long'
    >>> one_line(ValueError("much too long"), longest=16)
    'ValueError: muc…'
    """
    line = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that ends an error about an unknown name.

    Args:
        name: What the user wrote.
        known: The names that exist.

    Returns:
        ``"; did you mean 'x'?"`` where a known name is near, followed by the list of all.

    >>> did_you_mean("trails", ["trials", "seed"])
    "; did you mean 'trials'? Known: seed, trials"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(names)}" if names else hint
