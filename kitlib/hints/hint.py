"""One known message, and the notebooks that a hint can point to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INIT", "JOIN", "NETWORK", "PACKAGES", "PREFLIGHT", "READY", "RESET", "Hint"]


@dataclass(frozen=True, slots=True)
class Hint:
    """One known message.

    Attributes:
        id: Stable name.
        pattern: Regular expression; matched anywhere, case ignored.
        cause: What the message means.
        remedy: What to do.
        notebook: The notebook that goes on from here, by its file name without the ending; or "".
    """

    id: str
    pattern: str
    cause: str
    remedy: str
    notebook: str = ""


PREFLIGHT = "01_preflight"
RESET = "02_reset"
PACKAGES = "03_packages"
INIT = "04_init"
NETWORK = "05_network"
JOIN = "06_join"
READY = "07_ready"
