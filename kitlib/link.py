"""The ways to a cluster's API: through a control plane's SSH, or by a kubeconfig alone.

Each opens the API anew when it is asked to, after a loss too, and checks that it answers.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Protocol

import yaml

from kitlib.access import Access, check_answers
from kitlib.command import Cmd
from kitlib.errors import ApiError, ConnectError, ParamsError, ParseError
from kitlib.kube import Kube
from kitlib.kubeconfig import Kubeconfig
from kitlib.params import Params
from kitlib.ssh import Ssh
from kitlib.stages.configuration import API_PORT

__all__ = ["NO_CLUSTER", "KubeconfigLink", "Link", "SshLink"]

ADMIN_CONF = "/etc/kubernetes/admin.conf"
NO_CLUSTER = "NoCluster"
"""The reason of an ApiError where no control plane was ever made: waiting does not help."""


class Link(Protocol):
    """A way to the API."""

    def open(self) -> Kube:
        """Return the API, checked to be answering; what was open before is closed.

        Raises:
            ApiError: It does not answer.
            ConnectError: What carries the connection cannot be reached.
        """

    def close(self) -> None:
        """End the connection, and what carries it."""


class SshLink:
    """The way through a control plane that answers.

    Args:
        ssh: The way to the hosts.
        params: Which of them are control planes, and the endpoint in front of them.
        access: Whether the API is reached directly or through SSH.
    """

    def __init__(self, ssh: Ssh, params: Params, access: Access) -> None:
        self._ssh = ssh
        self._names = [host.name for host in params.hosts if host.is_control_plane]
        self._behind_endpoint = bool(params.control_plane_endpoint)
        self._access = access
        self._stack = ExitStack()

    def open(self) -> Kube:
        """Return the API, checked to be answering, through the first control plane that has it.

        Raises:
            ApiError: There is no cluster on a control plane, or the API does not answer.
            ConnectError: No control plane can be reached.
        """
        self.close()
        failures: list[ApiError | ConnectError] = []
        for name in self._names:
            try:
                return self._open_through(name)
            except (ApiError, ConnectError) as error:
                failures.append(error)
        # A cluster that does not answer says more than a control plane that never was one.
        told = [e for e in failures if not (isinstance(e, ApiError) and e.reason == NO_CLUSTER)]
        raise (told or failures)[0]

    def _open_through(self, name: str) -> Kube:
        # Read, never recorded: this file is the cluster's master key.
        result = self._ssh.run(name, Cmd.of("cat", ADMIN_CONF))
        if not result.ok:
            raise ApiError(
                f"{name}: no cluster: {ADMIN_CONF} is not there",
                reason=NO_CLUSTER,
                remedy="run the init stage first",
            )
        config = yaml.safe_load(result.stdout)
        # The control plane's own API is asked, whatever the endpoint in front of it does.
        own = ("127.0.0.1", API_PORT) if self._behind_endpoint else None
        kube, self._stack = self._access.open(
            config, lambda host, port: self._ssh.forward(name, *(own or (host, port)))
        )
        return kube

    def close(self) -> None:
        """End the connection and the forward."""
        self._stack.close()


class KubeconfigLink:
    """The way that a kubeconfig states, from this machine.

    Args:
        source: The kubeconfig.
    """

    def __init__(self, source: Kubeconfig) -> None:
        self._source = source
        self._kube: Kube | None = None

    def open(self) -> Kube:
        """Return the API, checked to be answering.

        Raises:
            ApiError: It does not answer, or does not know who asks; the remedy says what to try.
            ParamsError: The kubeconfig is not usable, or gives no credentials.
        """
        self.close()
        try:
            kube = Kube(self._source.config)
        except ParseError as error:
            text = error.message.removeprefix("kubeconfig: ")
            raise ParamsError(
                f"{self._source.source}: context {self._source.context!r}: {text}"
            ) from error
        try:
            check_answers(kube)
        except ApiError as error:
            kube.close()
            raise self._source.refused(error) from error
        self._kube = kube
        return kube

    def close(self) -> None:
        """End the connection."""
        if self._kube is not None:
            self._kube.close()
            self._kube = None
