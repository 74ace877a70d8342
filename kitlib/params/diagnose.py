"""The keys of a parameter file about measuring a cluster: what is put into it, and how much."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr

from kitlib.params.words import EFFECTS, Part, host_name, is_label, key_problem, value_problem

__all__ = ["Diagnose", "Probe"]

_IMAGE = re.compile(
    r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:\d{1,5})?/)?"
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_QUANTITY = re.compile(r"\d{1,15}(\.\d{1,9})?(n|u|m|k|[KMGTPE]i?|e\d{1,2})?")
_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
LONGEST_PREFIX = 50
"""A namespace has at most 63 characters, and a run's own part is put behind the prefix."""


def _image(text: str) -> str:
    if len(text) > 512 or not _IMAGE.fullmatch(text):
        raise ValueError(
            "an image, such as registry.example.net/tools/netshoot:v0.13 or with @sha256:<digest>"
        )
    return text


def _namespace(text: str) -> str:
    if not is_label(text) or len(text) > LONGEST_PREFIX:
        raise ValueError(
            f"a DNS label: lower-case letters, digits and -, at most {LONGEST_PREFIX}; "
            "a run's own part is put behind it"
        )
    if text == "kube" or text.startswith("kube-"):
        raise ValueError("not kube-...: Kubernetes keeps these names for itself")
    return text


def _resources(value: Any) -> dict[str, dict[str, str]]:
    if not isinstance(value, dict) or not set(value) <= {"requests", "limits"}:
        raise ValueError("a mapping with requests and limits, each {cpu: 10m, memory: 32Mi}")
    return {str(kind): _quantities(each) for kind, each in value.items()}


def _quantities(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("requests and limits are mappings, such as {cpu: 10m, memory: 32Mi}")
    for name, amount in value.items():
        if not isinstance(name, str) or key_problem(name):
            raise ValueError(f"{str(name)[:80]!r}: not the name of a resource, such as cpu")
        if isinstance(amount, bool) or not _QUANTITY.fullmatch(str(amount)):
            raise ValueError(f"{name}: {str(amount)[:80]!r}: not a quantity, such as 10m or 32Mi")
    return {name: str(amount) for name, amount in value.items()}


def _toleration(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= set(_TOLERATION):
        raise ValueError(f"a mapping of Kubernetes' toleration: {', '.join(_TOLERATION)}")
    key, operator = value.get("key", ""), value.get("operator", "Equal")
    effect, text = value.get("effect", ""), value.get("value", "")
    if not all(isinstance(each, str) for each in (key, text)):
        raise ValueError("key and value are strings: write them quoted")
    if key and (problem := key_problem(key)):
        raise ValueError(f"key: {problem}")
    if problem := value_problem(text):
        raise ValueError(f"value: {problem}")
    if operator not in ("Equal", "Exists"):
        raise ValueError("operator: Equal or Exists")
    if operator == "Exists" and text:
        raise ValueError("value: none with operator: Exists")
    if not key and operator != "Exists":
        raise ValueError("without a key, operator: Exists is needed; it tolerates every taint")
    if effect not in ("", *EFFECTS):
        raise ValueError(f"effect: {', '.join(EFFECTS)}, or none for all of them")
    seconds = value.get("tolerationSeconds", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds < 2**31:
        raise ValueError("tolerationSeconds: a whole number")
    if "tolerationSeconds" in value and effect != "NoExecute":
        raise ValueError("tolerationSeconds: only with effect: NoExecute")
    return dict(value)


def _name_or_none(text: str) -> str:
    try:
        return host_name(text.removesuffix(".")) if text else ""
    except ValueError:
        raise ValueError(
            "a DNS name in lower-case letters, such as www.example.org, or empty"
        ) from None


class Probe(Part):
    """What verify and the pings take."""

    image: Annotated[StrictStr, AfterValidator(_image)] = "docker.io/library/busybox:1.36"
    """The image of verify's pods and of a build's latency; it must have ping and nslookup."""
    samples: Annotated[StrictInt, Field(ge=1, le=100_000)] = 20
    """Packets for each ordered pair."""
    interval: Annotated[float, Field(strict=True, ge=0.002, le=60, allow_inf_nan=False)] = 0.2
    """Seconds between packets."""


class Diagnose(Part):
    """What is put into a living cluster to measure it, and how much is measured."""

    image: Annotated[StrictStr, AfterValidator(_image)] = "docker.io/nicolaka/netshoot:v0.13"
    """The image of the agents; a probe whose tool it does not have is skipped."""
    namespace: Annotated[StrictStr, AfterValidator(_namespace)] = "kit-diagnose"
    """What the name of the run's own namespace begins with."""
    resources: Annotated[Any, AfterValidator(_resources)] = Field(
        default_factory=lambda: {"requests": {"cpu": "10m", "memory": "32Mi"}}
    )
    """What an agent asks for and may take: Kubernetes' requests and limits."""
    tolerations: tuple[Annotated[Any, AfterValidator(_toleration)], ...] = ({"operator": "Exists"},)
    """Which taints the agents tolerate, in Kubernetes' words; the usual is every one."""
    port: Annotated[StrictInt, Field(ge=1024, le=65534)] = 18765
    """The port of the agents' HTTP server, on the pod network and on the hosts' own; the next one
    is iperf3's."""
    rounds: Annotated[StrictInt, Field(ge=1, le=1000)] = 3
    """How often every pair is measured."""
    side_by_side: Annotated[StrictInt, Field(ge=0, le=1000)] = 0
    """Pairs measured at a time; 0 is 1 in the lab and half of the nodes on real hosts."""
    most_pairs: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 2450
    """Ordered pairs measured at most; of more, a sample is drawn."""
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)] = 1
    """What that sample is drawn with: the same seed draws the same pairs."""
    external_name: Annotated[StrictStr, AfterValidator(_name_or_none)] = ""
    """A DNS name outside the cluster that pods should resolve; empty asks for none."""
    throughput: StrictBool = False
    """Whether throughput is measured too, which loads the network."""
    throughput_seconds: Annotated[StrictInt, Field(ge=1, le=60)] = 3
    """Seconds that one pair's throughput is measured for."""
