"""Nodes that behave alike as one row: a matrix of 200 nodes has as many lines as there are stories.

Two nodes are alike when nearly all that is known of both is the same: who they reach, who reaches
them, and why not. A sick node is alike nobody, the whole ones are alike each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

__all__ = ["GROUPED_COLUMNS", "alike", "grouped", "name_of"]

GROUPED_COLUMNS = ("src", "dst", "kind", "state", "reason", "fails", "of")
"""`grouped`: one row for each two groups (also a group with itself) and each group and what it
asks; src and dst are the groups' numbers, dst of kind `end` the end's name. fails counts the pairs
that fail of those that were probed (`of`), reason is the most frequent one of them."""

AGREE = 0.9
"""So much of what is known of both must be the same."""

Group = tuple[str, ...]


def alike(matrix: pd.DataFrame, nodes: Sequence[str], *, most: int) -> list[Group]:
    """Return the nodes in groups, in the order of their first members; each alone where few.

    Args:
        matrix: `connectivity.Judgement.matrix`.
        nodes: All nodes, in the order in which they are shown.
        most: So many groups at most: the smallest ones become one, the last.
    """
    if len(nodes) <= most:
        return [(node,) for node in nodes]
    codes = _codes(matrix, nodes)
    leaders: list[int] = []
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(len(nodes)):
        leader = next((each for each in leaders if _same(codes, each, place)), None)
        if leader is None:
            leaders.append(place)
            leader = place
        members[leader].append(place)
    groups = [tuple(nodes[place] for place in members[leader]) for leader in leaders]
    if len(groups) <= most:
        return groups
    failing = Counter(matrix.loc[matrix["state"] == "fails", "src"])
    rank = sorted(
        groups, key=lambda group: (-len(group), -sum(failing[node] for node in group) / len(group))
    )
    kept = set(rank[: most - 1])
    rest = tuple(node for group in groups if group not in kept for node in group)
    return [*(group for group in groups if group in kept), rest]


def grouped(matrix: pd.DataFrame, groups: Sequence[Group]) -> pd.DataFrame:
    """Return how each group fares with each other; columns: GROUPED_COLUMNS."""
    number = {node: place for place, group in enumerate(groups) for node in group}
    table = matrix.assign(
        src=matrix["src"].map(number),
        dst=[number.get(dst, dst) for dst in matrix["dst"]],
        fails=(matrix["state"] == "fails").astype(int),
        of=(matrix["state"] != "unknown").astype(int),
    )
    keys = ["src", "dst", "kind"]
    counts = table.groupby(keys, sort=True)[["fails", "of"]].sum().reset_index()
    bad = table[table["fails"] > 0].groupby(keys)["reason"].agg(lambda each: each.mode().iloc[0])
    found = counts.merge(bad.reset_index(), on=keys, how="left").fillna({"reason": ""})
    found["state"] = np.where(
        found["fails"] > 0, "fails", np.where(found["of"] > 0, "works", "unknown")
    )
    return found[list(GROUPED_COLUMNS)]


def name_of(group: Group, groups: Sequence[Group]) -> str:
    """Return how a group is called: its only node, or how many it has."""
    if len(group) == 1:
        return group[0]
    others = sum(len(each) for each in groups) - len(group)
    return f"{len(group)} {'others' if others else 'nodes'}"


def _codes(
    matrix: pd.DataFrame, nodes: Sequence[str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return for each node what is known of it with each other, both ways; 0 for nothing."""
    place = {node: number for number, node in enumerate(nodes)}
    own = matrix[matrix["src"].isin(place) & matrix["dst"].isin(place)]
    words = own["state"].where(own["state"] != "fails", own["reason"])
    code, _ = pd.factorize(words)
    known = np.where(own["state"] == "unknown", 0, code + 1)
    table = np.zeros((len(nodes), 2, len(nodes)), dtype=np.int64)
    rows, columns = own["src"].map(place).to_numpy(), own["dst"].map(place).to_numpy()
    table[rows, 0, columns] = known
    table[columns, 1, rows] = known
    return table


def _same(codes: np.ndarray[tuple[int, ...], np.dtype[np.int64]], one: int, other: int) -> bool:
    both = (codes[one] > 0) & (codes[other] > 0)
    return bool((codes[one] == codes[other])[both].sum() >= AGREE * both.sum())
