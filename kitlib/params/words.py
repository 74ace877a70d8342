"""What several parts of a parameter file are made of: the names that Kubernetes takes."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

__all__ = ["EFFECTS", "Part", "host_name", "is_label", "key_problem", "label", "value_problem"]

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NODE_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Part(BaseModel):
    """A mapping of the file: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def is_label(text: str) -> bool:
    """Return whether a text is a DNS label."""
    return _LABEL.fullmatch(text) is not None


def label(text: str) -> str:
    """Return a DNS label as it is; raise ValueError with the rule for anything else."""
    if not is_label(text):
        raise ValueError("a DNS label: lower-case letters, digits and -, at most 63")
    return text


def host_name(text: str) -> str:
    """Return a host's name as it is; raise ValueError with the rule for anything else."""
    if len(text) > 253 or not all(map(is_label, text.split("."))):
        raise ValueError("a host name: lower-case letters, digits, - and dots, as a Node's name")
    return text


def key_problem(key: str) -> str:
    """Return what is wrong with the key of a label or taint; empty when nothing is."""
    prefix, slash, name = key.rpartition("/")
    if not _NODE_LABEL.fullmatch(name):
        return "a name of letters, digits, '-', '_' and '.', at most 63"
    if slash and not (prefix and len(prefix) <= 253 and all(map(is_label, prefix.split(".")))):
        return "its prefix, before the '/', a DNS name"
    return ""


def value_problem(value: str) -> str:
    """Return what is wrong with the value of a label or taint; empty when nothing is."""
    if value and not _NODE_LABEL.fullmatch(value):
        return "a value of letters, digits, '-', '_' and '.', at most 63, or empty"
    return ""
