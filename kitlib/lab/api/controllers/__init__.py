"""The controller manager and the scheduler of an emulated cluster, as tasks of the API process."""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path

from kitlib.lab.api import clock
from kitlib.lab.api.auth import Auth
from kitlib.lab.api.controllers.base import Controller, Recorder
from kitlib.lab.api.controllers.bootstrap import BootstrapSigner, Certificates, TokenCleaner
from kitlib.lab.api.controllers.cluster import (
    EventAges,
    GarbageCollector,
    Namespaces,
    ServiceAccounts,
)
from kitlib.lab.api.controllers.daemons import DaemonSets
from kitlib.lab.api.controllers.definitions import Definitions
from kitlib.lab.api.controllers.disruption import Disruptions
from kitlib.lab.api.controllers.nodes import Evictions, NodeCidrs, NodeLifecycle
from kitlib.lab.api.controllers.roles import publish_roles
from kitlib.lab.api.controllers.scheduler import Scheduler
from kitlib.lab.api.controllers.services import Endpoints, publish_api
from kitlib.lab.api.controllers.workloads import Deployments, ReplicaSets
from kitlib.lab.api.registry import NAMESPACES, SYSTEM_NAMESPACES, Registry

log = logging.getLogger(__name__)

# Recorded: on a new cluster the controllers are at work 17 s after the API came up (they are
# started twice on the way); after a restart of the API alone they are back within 2 s.
FIRST_START, RESTART = 17.0, 2.0
_FAULTS_EVERY = 0.1


class Manager:
    """Starts what the API server makes itself, and the controllers after their delay."""

    def __init__(self, registry: Registry, auth: Auth) -> None:
        self._registry = registry
        self._fresh = registry.store.fresh
        self._auth = auth
        self._tasks: list[asyncio.Task[None]] = []
        self._signer = BootstrapSigner(registry)
        self._cleaner = TokenCleaner(registry)

    def start(self) -> None:
        """Make the system namespaces and the `kubernetes` Service; begin the rest."""
        for name in SYSTEM_NAMESPACES:
            if not self._registry.store.get(NAMESPACES, "", name):
                self._registry.make(NAMESPACES, {"metadata": {"name": name}})
        publish_api(self._registry)
        publish_roles(self._registry)
        self._tasks.append(asyncio.create_task(self._begin()))

    async def _begin(self) -> None:
        recorded = FIRST_START if self._fresh else RESTART
        await asyncio.sleep(recorded * self._registry.settings.time_factor)
        self._lead()
        registry = self._registry
        controllers: list[Controller] = [
            ServiceAccounts(registry, self._auth),
            NodeCidrs(registry),
            NodeLifecycle(registry),
            Deployments(registry),
            ReplicaSets(registry),
            DaemonSets(registry),
            Scheduler(registry),
            Disruptions(registry),
            Endpoints(registry),
            Certificates(registry),
            self._signer,
            self._cleaner,
            Evictions(registry),
            GarbageCollector(registry),
            Namespaces(registry),
            Definitions(registry),
            EventAges(registry),
        ]
        async with asyncio.TaskGroup() as group:
            for controller in controllers:
                group.create_task(controller.run(), name=controller.name)

    async def follow_faults(self, file: Path) -> None:
        """Take over the faults that a file names, one a line, as they come and go."""
        faults = self._registry.settings.faults
        while True:
            try:
                now = set(file.read_text().split())
            except OSError:
                now = set()
            if now != faults:
                faults.clear()
                faults.update(now)
                for controller in (self._signer, self._cleaner):
                    controller.seed()
            await asyncio.sleep(_FAULTS_EVERY)

    def _lead(self) -> None:
        """Record who leads: the control plane's only candidates."""
        recorder = Recorder(self._registry)
        for name, component in (
            ("kube-controller-manager", "kube-controller-manager"),
            ("kube-scheduler", "default-scheduler"),
        ):
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-system", "uid": clock.uid()},
            }
            identity = f"{self._registry.settings.advertise}_{secrets.token_hex(8)}"
            text = f"{identity} became leader"
            recorder.record(lease, "Normal", "LeaderElection", text, component)

    async def stop(self) -> None:
        """Stop everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
