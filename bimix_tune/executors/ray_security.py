"""Who may reach a Ray cluster: whoever can, runs code on it.

Clusters that `ray_cluster.connect` starts listen on the loopback interface alone and ask for a
token; joining one that is open to its network is worth a warning.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

HOW = (
    "to turn on token authentication, run `ray get-auth-token --generate > /dev/null`, copy "
    "~/.ray/auth_token to every node (readable by you alone), set RAY_AUTH_MODE=token "
    "everywhere, and start the cluster again; the token does not encrypt, so keep to a private "
    "network or TLS"
)


def warn_if_open(nodes: Iterable[Any]) -> None:
    """Log a warning if a cluster without token authentication is not on loopback alone.

    Args:
        nodes: What ``ray.nodes()`` says.
    """
    addresses = {str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]}
    outside = sorted(a for a in addresses if not _is_loopback(a))
    if outside and not has_token():
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        _log.warning(
            "anyone who reaches %s%s can run code on this Ray cluster: it has no token "
            "authentication; %s",
            outside[0],
            more,
            HOW,
        )


def has_token() -> bool:
    """Whether the cluster that this process is connected to asks for a token.

    A client that has another mode than its cluster is refused, so its own mode tells.
    """
    try:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled
    except ImportError:  # another release of Ray
        return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return bool(is_token_auth_enabled())


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """A cluster started meanwhile listens on the loopback interface alone, and the token that Ray
    makes for it, where there is none, can be read by its user alone.

    Ray does so by itself on macOS and Windows; elsewhere it takes the machine's own address and
    turns even an explicit 127.0.0.1 into it. This is the switch between the two, which Ray reads
    from ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER`` when it is imported.
    """
    from ray._private import ray_constants

    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    if before is not None:
        ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        if before is not None:
            ray_constants.ENABLE_RAY_CLUSTER = before
        with contextlib.suppress(OSError):  # no such file, or another user's
            (Path.home() / ".ray" / "auth_token").chmod(0o600)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
