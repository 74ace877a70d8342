"""PodDisruptionBudgets: what they allow now, and what an eviction takes of them."""

from __future__ import annotations

from kitlib.lab.api import clock, errors
from kitlib.lab.api.registry import PODS, Registry
from kitlib.lab.api.selectors import label_selector
from kitlib.lab.api.state import healthy, terminating
from kitlib.lab.api.store import Obj

__all__ = ["BUDGETS", "budgets_of", "condition_of", "evict", "selects"]

BUDGETS = "policy/poddisruptionbudgets"
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_SEVERAL = (
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not "
    "support."
)


def selects(budget: Obj, pod: Obj) -> bool:
    """Return whether a budget is about a pod."""
    meta = pod["metadata"]
    selector = budget["spec"].get("selector")
    return (
        selector is not None
        and budget["metadata"]["namespace"] == meta.get("namespace")
        and bool(meta.get("labels"))
        and label_selector(selector, meta["labels"])
    )


def budgets_of(registry: Registry, pod: Obj) -> list[Obj]:
    """Return the budgets that are about a pod."""
    namespace = pod["metadata"].get("namespace", "")
    return [each for each in registry.store.items(BUDGETS, namespace) if selects(each, pod)]


def condition_of(allowed: int, generation: int, before: Obj) -> Obj:
    """Return the DisruptionAllowed condition; its time stays while its status does."""
    status = "True" if allowed > 0 else "False"
    known = next((each for each in before.get("conditions") or []), None)
    since = known["lastTransitionTime"] if known and known["status"] == status else clock.stamp()
    return {
        "type": "DisruptionAllowed",
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": "SufficientPods" if allowed > 0 else "InsufficientPods",
        "message": "",
    }


def evict(registry: Registry, namespace: str, name: str, options: Obj, *, dry_run: bool) -> None:
    """Delete a pod with its grace period, where its budget allows it.

    Raises:
        ApiError: 404; 429 where the budget does not allow it now; 500 for several budgets.
    """
    resource = registry.catalogue.by_kind[PODS]
    pod = registry.get(resource, namespace, name)
    if not _may_go_anyway(pod):
        found = budgets_of(registry, pod)
        if len(found) > 1:
            raise errors.ApiError(500, "InternalError", f"Internal error occurred: {_SEVERAL}")
        if found and not _spare(found[0], pod):
            _spend(registry, found[0], name, dry_run=dry_run)
    registry.delete(resource, namespace, name, options, dry_run=dry_run)


def _may_go_anyway(pod: Obj) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or terminating(pod)


def _spare(budget: Obj, pod: Obj) -> bool:
    """Return whether a pod that is not Ready may go because enough others are."""
    status = budget.get("status") or {}
    wanted = status.get("desiredHealthy", 0)
    return not healthy(pod) and status.get("currentHealthy", 0) >= wanted > 0


def _spend(registry: Registry, budget: Obj, pod: str, *, dry_run: bool) -> None:
    meta, status = budget["metadata"], budget.get("status") or {}
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        raise _refusal(f"The disruption budget {meta['name']} is still being processed by the "
                       "server.")  # fmt: skip
    if status.get("disruptionsAllowed", 0) <= 0:
        raise _refusal(
            f"The disruption budget {meta['name']} needs {status.get('desiredHealthy', 0)} "
            f"healthy pods and has {status.get('currentHealthy', 0)} currently"
        )
    if dry_run:
        return

    def take(obj: Obj) -> None:
        now = obj["status"]
        now["disruptionsAllowed"] -= 1
        now.setdefault("disruptedPods", {})[pod] = clock.stamp()

    registry.patch(BUDGETS, meta["namespace"], meta["name"], take)


def _refusal(why: str) -> errors.ApiError:
    causes = [{"reason": "DisruptionBudget", "message": why}]
    return errors.ApiError(429, "TooManyRequests", _REFUSED, {"causes": causes})
