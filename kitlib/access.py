"""How the Kubernetes API is reached: from this machine directly, or through an SSH forward.

The certificate is checked against the API's own address either way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from kitlib.errors import ApiError
from kitlib.kube import Kube

__all__ = ["DIRECT_TIMEOUT", "Access", "Forward", "check_answers"]

DIRECT_TIMEOUT = 2.0
"""Seconds that a direct connection may take before `auto` takes the tunnel."""

NOT_TOLD = (403, 404)
"""What an API answers that does not tell this user of its health, or none (before 1.16)."""

Forward = Callable[[str, int], AbstractContextManager[int]]
"""Given the API's host and port: a port on this machine's loopback that leads there."""


class Access:
    """Opens connections to the API, and knows which way works.

    Args:
        mode: `direct`, `tunnel`, or `auto`: directly where that works, else through the tunnel.
        ssh_address: Where the control plane's SSH server is.
        known: What `auto` found before in the same run, `direct` or `tunnel`; empty for nothing.
        note: Is told which way is taken, and why; called when that is found or changes.

    Safe to use from several threads.
    """

    def __init__(
        self,
        mode: str,
        *,
        ssh_address: str = "",
        known: str = "",
        note: Callable[[str, str], None],
    ) -> None:
        self._mode = mode
        self._way = known if mode == "auto" else ""
        self._ssh_address = ssh_address
        self._note = note
        self._lock = threading.Lock()

    def open(self, config: dict[str, Any], forward: Forward) -> tuple[Kube, ExitStack]:
        """Return the API, checked to be answering, and what carries it: close that at the end.

        Args:
            config: A parsed kubeconfig.
            forward: Makes the tunnel.

        Raises:
            ApiError: It does not answer.
        """
        server = urlsplit(config["clusters"][0]["cluster"]["server"])
        host, port = str(server.hostname), server.port or 443
        if self._mode == "direct":
            try:
                opened = _answering(config)
            except ApiError as error:
                error.remedy = "api_access: tunnel reaches it through SSH; " + error.remedy
                raise
            self._found("direct", "api_access says so")
            return opened
        if self._mode == "auto" and self._way == "direct":
            try:
                return _answering(config)
            except ApiError:
                pass  # the tunnel tells whether it is the way or the API
        # Through the tunnel first: while an API is starting, only that tells it from a bad way.
        kube, stack = _answering(config, forward(host, port))
        if self._mode == "tunnel":
            self._found("tunnel", "api_access says so")
        elif self._way != "tunnel":
            if _is_loopback(self._ssh_address) and not _is_loopback(host):
                # Its own addresses mean nothing here; somebody else may have them.
                self._found("tunnel", "the control plane is reached on this machine's loopback")
                return kube, stack
            try:
                opened = _answering(config, connect_timeout=DIRECT_TIMEOUT)
            except ApiError as error:
                self._found("tunnel", error.message)
            else:
                stack.close()
                self._found("direct", f"{host}:{port} answers")
                return opened
        return kube, stack

    def _found(self, way: str, why: str) -> None:
        with self._lock:
            if self._way == way:
                return
            self._way = way
            self._note(way, why)


def _answering(
    config: dict[str, Any],
    tunnel: AbstractContextManager[int] | None = None,
    connect_timeout: float = 5,
) -> tuple[Kube, ExitStack]:
    with ExitStack() as stack:
        port = stack.enter_context(tunnel) if tunnel is not None else 0
        kube = stack.enter_context(Kube(config, port=port, connect_timeout=connect_timeout))
        check_answers(kube)
        return kube, stack.pop_all()


def check_answers(kube: Kube) -> None:
    """Return where the API answers and is ready; one that says so to administrators only is taken.

    Raises:
        ApiError: It is not ready, out of reach, or does not know who asks.
    """
    try:
        kube.text("/readyz")
    except ApiError as error:
        if error.status not in NOT_TOLD:
            raise


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
