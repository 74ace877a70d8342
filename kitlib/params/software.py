"""The keys of a parameter file about what is installed on the hosts: swap, packages, proxy."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictStr

__all__ = ["Swap"]

SWAP_RULE = "off or keep"


def _swap(value: Any) -> str:
    """Return the choice; YAML reads an unquoted `off` as the value false."""
    if value is False:
        return "off"
    if value in ("off", "keep"):
        return str(value)
    raise ValueError(SWAP_RULE)


Swap = Annotated[StrictStr, BeforeValidator(_swap)]
"""`off` or `keep`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
