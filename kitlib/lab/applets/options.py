"""The command lines of the lab's tools: short and long flags, as getopt reads them."""

from __future__ import annotations

__all__ = ["WrongUsage", "parse"]


class WrongUsage(Exception):
    """A flag that the tool does not take; the text is the flag."""


def parse(
    argv: list[str], takes: dict[str, str], switches: dict[str, str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the flags by their one name with their values, in order, and the other words.

    Args:
        argv: The words behind the program's name.
        takes: Flags with a value, `-o` or `--output`, to their name.
        switches: Flags without one, to their name.

    Raises:
        WrongUsage: A flag is not known, or its value is missing.
    """
    found: list[tuple[str, str]] = []
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return found, rest + words
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            if flag in switches and not equals:
                found.append((switches[flag], ""))
            elif flag in takes:
                found.append((takes[flag], value if equals else _next(words, flag)))
            else:
                raise WrongUsage(flag)
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                flag, letters = f"-{letters[0]}", letters[1:]
                if flag in switches:
                    found.append((switches[flag], ""))
                elif flag in takes:
                    found.append((takes[flag], letters or _next(words, flag)))
                    letters = ""
                else:
                    raise WrongUsage(flag)
        else:
            rest.append(word)
    return found, rest


def _next(words: list[str], flag: str) -> str:
    if not words:
        raise WrongUsage(flag)
    return words.pop(0)
