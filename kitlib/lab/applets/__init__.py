"""Small network tools of the lab's own, for containers on machines that lack the real ones.

They measure really, and print what the real ones print for the flags that they take; a flag that
they do not take is refused. They start with few imports, because a container starts many of them:
nothing of the standard library that is slow to load, and nothing of ours but each other.
"""
