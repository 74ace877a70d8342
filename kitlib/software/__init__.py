"""What a host needs to become a node, and the files and commands that give it: text in, text out.

Nothing here reaches a host; the packages stage does, with what these modules return.
"""

from __future__ import annotations
