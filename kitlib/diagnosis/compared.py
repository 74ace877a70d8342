"""What the comparison's notebook and report show: figures, a table to decide from, plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kitlib import charts
from kitlib.charts import Picture
from kitlib.diagnosis import comparison, ways
from kitlib.diagnosis.comparison import Compared
from kitlib.model import Check
from kitlib.plugins import Plugin

__all__ = ["Sight"]

NOTHING = "-"
PANELS = 4
"""Panels beside each other in the chart of distributions."""


@dataclass(frozen=True)
class Sight:
    """A comparison, ready to be looked at; every part is computed once, when it is first wanted.

    Attributes:
        compared: What was gathered from the runs.
    """

    compared: Compared

    @cached_property
    def latency(self) -> pd.DataFrame:
        """`comparison.latency`, the cheapest first."""
        return comparison.latency(self.compared)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """`comparison.differences`."""
        return comparison.differences(self.compared)

    @cached_property
    def ways(self) -> pd.DataFrame:
        """`ways.ways`, of every worker of every build."""
        return ways.ways(self.compared.moments)

    @cached_property
    def ready(self) -> pd.DataFrame:
        """`ways.mean_waits`."""
        return ways.mean_waits(self.ways)

    @property
    def in_lab(self) -> bool:
        """Whether the runs are a lab's."""
        return self.compared.provenance.is_lab

    @cached_property
    def unit(self) -> tuple[float, str]:
        """The factor from milliseconds, and the unit of all latencies shown."""
        return charts.unit_of(self.latency["p50_ms"])

    @property
    def emulated(self) -> str:
        """How readiness has to be captioned: empty on real hosts."""
        if not self.in_lab:
            return ""
        factors = ", ".join(f"{factor:g}" for factor in self.compared.time_factors)
        return f"emulated, time factor {factors}" if factors else "emulated"

    # --- figures ---------------------------------------------------------------------------------

    def cost_figure(self) -> Picture | None:
        """Return what each plugin costs, and its percentiles; None when nothing was measured."""
        table = self.latency
        if table.empty:
            return None
        factor, unit = self.unit
        told = ", ".join(
            f"{name} {charts.in_figures(value * factor)} {unit}"
            for name, value in zip(table["subject"], table["cost_ms"], strict=True)
        )
        picture = Picture(
            10.6, 1.75 + 0.36 * len(table),
            caption=f"{self._intervals()} Open squares: host to host in the same builds. "
            f"{self.provenance()}",
            alt=f"Cost over the hosts' own latency, cheapest first: {told}.",
        )  # fmt: skip
        axes = picture.subplots(1, 3, width_ratios=[1.15, 1, 1])
        looks = (
            ("cost", "What pods pay over their hosts, median", "", "More than host to host"),
            ("p50", "Median between pods", "host_p50_ms", "Round-trip time"),
            ("p99", "99th percentile between pods", "", "Round-trip time"),
        )
        for at, (value, title, baseline, axis) in enumerate(looks):
            charts.cost_chart(
                axes[at], table, value=value, factor=factor, unit=f"{axis}, {unit}",
                title=title, baseline=baseline, names=at == 0,
            )  # fmt: skip
        return picture

    def difference_figure(self) -> Picture | None:
        """Return which plugins differ and by how much; None where there are no two."""
        found = self.differences
        if found.empty:
            return None
        order = list(self.latency.sort_values("ratio")["subject"])
        differ = int(found["differs"].sum())
        side = 2.6 + 0.46 * len(order)
        picture = Picture(
            max(6.6, side + 1.4), side,
            caption="Compared is the ratio of the pods' median to their hosts' in the same build. "
            "An equals sign: the interval of the difference holds 0. The intervals hold for all "
            f"squares together with 95 % confidence. {self.provenance()}",
            alt=f"{differ} of {len(found)} pairs of plugins differ: {self._differ_words()}",
            square=True,
        )  # fmt: skip
        charts.difference_matrix(
            picture.add_subplot(), found, order, title="Which differ, and by how many percent"
        )
        return picture

    def distribution_figure(self) -> Picture | None:
        """Return each plugin's round trips in a panel of its own; None without any."""
        order = list(self.latency["subject"])
        if not order:
            return None
        factor, unit = self.unit
        came: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
        samples = self.compared.samples[~self.compared.samples["duplicate"].astype(bool)]
        for (subject, path), own in samples.groupby(["subject", "path"], observed=True):
            came[str(subject), str(path)] = own["rtt_ms"].dropna().to_numpy(float) * factor
        everything = np.concatenate(list(came.values()))
        limits = (
            float(np.quantile(everything, 0.001)) * 0.9,
            float(np.quantile(everything, 0.999)) * 1.1,
        )
        sent = dict(zip(self.latency["subject"], self.latency["n"], strict=True))
        columns = min(PANELS, len(order))
        rows = math.ceil(len(order) / columns)
        picture = Picture(
            2.7 * columns if columns > 1 else 5.0, 0.9 + 1.75 * rows,
            caption="Share of packets back within a time; dark: this plugin's pods, dashed: their "
            "hosts, pale: the other plugins; dot: median. Without the slowest 0.1 %. "
            f"{self.provenance()}",
            alt=f"Cumulative distributions of round-trip times of {', '.join(order)}.",
        )  # fmt: skip
        axes = picture.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        empty = np.array([])
        for at, panel in enumerate(axes.flat):
            if at >= len(order):
                panel.set_visible(False)
                continue
            name = order[at]
            charts.ecdf_panel(
                panel, came.get((name, "pod"), empty), came.get((name, "host"), empty),
                [came[other, "pod"] for other in order if other != name], sent=int(sent[name]),
                title=name, limits=limits,
            )  # fmt: skip
            if at + columns >= len(order):
                panel.tick_params(labelbottom=True)
                panel.set_xlabel(f"Round trip, {unit} (log)", fontsize=8)
            if at % columns == 0:
                panel.set_ylabel("packets back, %", fontsize=8)
        return picture

    def readiness_figure(self) -> Picture | None:
        """Return what workers waited for; None where no worker's way is on record.

        In a lab the plugins stand in the order of their names: these times rank nothing.
        """
        totals = self.ready[self.ready["phase"] == ways.TOTAL]
        if totals.empty:
            return None
        order = list(totals.sort_values("subject" if self.in_lab else "seconds")["subject"])
        told = ", ".join(
            f"{name} {value:.1f} s"
            for name, value in zip(totals["subject"], totals["seconds"], strict=True)
        )
        spread = f"{self.ways[ways.TOTAL].min():.1f} to {self.ways[ways.TOTAL].max():.1f} s"
        warned = (
            f"These times are {self.emulated}: they show the order of things, and rank nothing. "
            if self.in_lab
            else ""
        )
        picture = Picture(
            10.2, 1.7 + 0.36 * len(order), caption=warned + self.provenance(),
            alt=f"Waits from kubeadm join to Ready{', emulated' if self.in_lab else ''}: {told}; "
            f"single workers {spread}.",
        )  # fmt: skip
        charts.readiness_bars(picture.add_subplot(), self.ready, self.ways, ordered=order)
        return picture

    # --- tables and words ------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """Return the table to decide from, as texts: one row a plugin, the cheapest first.

        What was never measured comes last. Columns whose heads begin with # are numbers.
        """
        factor, unit = self.unit
        measured = self.latency.set_index("subject")
        totals = self.ready[self.ready["phase"] == ways.TOTAL].set_index("subject")["seconds"]
        order = [*measured.index, *(s for s in self.compared.subjects if s not in measured.index)]
        rows = []
        for subject in order:
            runs = self.compared.runs[self.compared.runs["subject"] == subject]
            # None: a plugin of another release of the kit.
            known = self.compared.plugins.get(str(runs["plugin"].iloc[0]))
            row = {
                "Plugin": subject,
                "Kubernetes": ", ".join(sorted(set(runs["kubernetes_version"]))),
                "Builds passed": f"{int(runs['counts'].sum())} of {_builds(runs)}",
                "Upstream": known.status.state if known else NOTHING,
                "Datapath": self._datapath(runs, known),
            }
            here = measured.loc[subject] if subject in measured.index else None
            for head, value, digits in (
                (f"#Cost, {unit}", "cost", factor),
                (f"#p50, {unit}", "p50", factor),
                (f"#p99, {unit}", "p99", factor),
            ):
                row[head] = _with_bounds(here, value, digits)
            row["#Loss, %"] = NOTHING if here is None else f"{here['loss_pct']:.2f}"
            row["#Ready, s (emulated)" if self.in_lab else "#Ready, s"] = (
                f"{totals[subject]:.1f}" if subject in totals.index else NOTHING
            )
            row["No difference from"] = ", ".join(self._alike(subject)) or NOTHING
            row["NetworkPolicy"] = ("yes" if known.network_policy else "no") if known else NOTHING
            row["Encryption"] = (", ".join(known.encryption) or "no") if known else NOTHING
            rows.append(row)
        return pd.DataFrame(rows)

    def words(self) -> list[str]:
        """Return what the numbers say and do not say, a sentence or two each."""
        table, found = self.latency, self.differences
        told = []
        if not table.empty:
            factor, unit = self.unit
            best = table.iloc[0]
            told.append(
                f"Cheapest over its hosts: {best['subject']}, {best['cost_ms'] * factor:.1f} "
                f"{unit}."
                + (f" No difference from it: {alike}." if (alike := self._like_best()) else "")
            )
            told.append(
                f"Measured: {_span(table['rounds'])} builds of each, "
                f"{_span(table['pairs'])} ordered pairs of nodes, {_span(table['n'])} packets "
                "between each one's pods. " + self._intervals()
            )
        judged = found[found["judged"]]
        if len(judged):
            differ = int(judged["differs"].sum())
            verb = "differs" if differ == 1 else "differ"
            told.append(
                f"Of {len(judged)} pairs of plugins {differ} {verb}; in the others there is no "
                "difference, as far as these builds can tell."
            )
        if len(judged) < len(found):
            told.append(
                f"Not judged: {len(found) - len(judged)} pairs, which were built in one round "
                "alone, or never in a round together."
            )
        clusters = sorted(set(self.compared.runs["cluster"]))
        if len(clusters) > 1:
            told.append(
                f"The runs are of several clusters ({', '.join(clusters)}): a difference may be "
                "that of the hosts."
            )
        if self.in_lab:
            told.append(
                f"Lab: packets are real, their way is the kernel's own; what leads to Ready is "
                f"{self.emulated}, and ranks nothing."
            )
        return told

    def checks(self) -> list[Check]:
        """Return one check a plugin: every one of its builds passed."""
        found = []
        for subject, runs in self.compared.runs.groupby("subject", sort=True):
            bad = runs[runs["verdict"] != "PASS"]
            # A build that failed and was made again in its round is mended.
            bad = bad[~bad["block"].isin(runs.loc[runs["counts"], "block"])]
            said = "; ".join(sorted(set(bad["reason"]) - {""})) or "no verdict"
            found.append(
                Check.that(
                    bad.empty,
                    "comparison.builds",
                    str(subject),
                    "every build was applied, Ready, measured and removed",
                    got=f"{int(runs['counts'].sum())} builds"
                    if bad.empty
                    else f"{len(bad)} failed: {said}",
                    expected="no failed build",
                    remedy=f"kit report {bad['path'].iloc[-1]}" if len(bad) else "",
                )
            )
        return found

    def _intervals(self) -> str:
        rounds = self.latency["rounds"]
        if rounds.empty or int(rounds.max()) < 2:
            return "One build each: there is no interval."
        return (
            "Intervals: 95 % confidence, by resampling whole builds and pairs of nodes; with few "
            "builds they are wide, as they should be."
        )

    def provenance(self) -> str:
        """Return where the numbers come from, and what stands in for what for which plugin."""
        bare = replace(self.compared.provenance, stands_in="", time_factor=None)
        said = [str(bare)]
        for subject, text in self._stands_in().items():
            said.append(f"{subject}: {text}")
        return "; ".join(said)

    def _stands_in(self) -> dict[str, str]:
        runs = self.compared.runs[self.compared.runs["stands_in"] != ""]
        return {str(s): str(own["stands_in"].iloc[-1]) for s, own in runs.groupby("subject")}

    def _datapath(self, runs: pd.DataFrame, known: Plugin | None) -> str:
        if known is None:
            return NOTHING
        tunnel = known.interfaces.tunnel
        wrapped = known.encapsulation or "routes"
        said = f"{known.layer}, {wrapped}{f' through {tunnel}' if tunnel else ''}"
        stands_in = self._stands_in().get(str(runs["subject"].iloc[0]))
        return f"{said} ({stands_in})" if stands_in else said

    def _alike(self, subject: str) -> Sequence[str]:
        same = self.differences[self.differences["judged"] & ~self.differences["differs"]]
        others = {
            *same.loc[same["first"] == subject, "second"],
            *same.loc[same["second"] == subject, "first"],
        }
        return [name for name in self.latency["subject"] if name in others]

    def _like_best(self) -> str:
        return ", ".join(self._alike(str(self.latency["subject"].iloc[0])))

    def _differ_words(self) -> str:
        told = [
            f"{each['first']} {each['percent']:+.0f} % against {each['second']}"
            for each in self.differences.to_dict("records")
            if each["differs"]
        ]
        return (", ".join(told) or "none") + "."


def _builds(runs: pd.DataFrame) -> int:
    """Return how many builds were wanted: one that was made again in its round is one."""
    return int(runs["block"].nunique())


def _with_bounds(row: Any, value: str, factor: float) -> str:
    if row is None:
        return NOTHING
    middle, low, high = (float(row[f"{value}{part}_ms"]) * factor for part in ("", "_low", "_high"))
    digits = 1 if factor > 1 else 3
    if math.isnan(low):
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f}\n({low:.{digits}f} to {high:.{digits}f})"


def _span(column: pd.Series[Any]) -> str:
    least, most = int(column.min()), int(column.max())
    return str(least) if least == most else f"{least} to {most}"
