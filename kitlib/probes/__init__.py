"""Active measurements as (command, parse) pairs: text in, rows out, nothing is run here."""

__all__ = ["BY_HAND"]

BY_HAND = "run the command by hand in such a pod: the tool is none that docs/probes.md names"
"""The remedy where a tool printed what its parser does not know."""
