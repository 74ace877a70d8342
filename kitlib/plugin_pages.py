"""The plugin catalogue as a person reads it: a table to choose from, and one page a plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import fill, wrap
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kitlib.errors import ParamsError
from kitlib.manifests import shown_manifest
from kitlib.plugins import Plugin
from kitlib.plugins.entry import minor
from kitlib.plugins.fit import Fits, fit
from kitlib.plugins.install import Place, Setting
from kitlib.stages.fetching import fetch_release

__all__ = ["Row", "Section", "as_data", "manifest", "overview", "page", "rows", "sections"]

NARROW = 112
"""Columns of a terminal below which the table has the short form of itself."""

_LIVING = ("maintained", "commercial", "archived", "retired")
"""The states in the order of the table: what is looked after comes first."""


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin in the table; every value is a word or two, empty for nothing.

    Attributes:
        plugin: Its name.
        status: How the project stands: maintained, commercial, archived or retired.
        released: The month of its last release.
        kubernetes: Oldest and newest Kubernetes version that some release works on.
        install: manifest, chart, or per host (the kit writes it).
        network: What packets between nodes are wrapped in, and how many bytes that takes.
        policy: Whether NetworkPolicy objects have an effect.
        encryption: How packets between nodes can be encrypted, a word for each way.
        ipv6: Whether pods can have IPv6 addresses.
        pod_cidr: The pods' addresses where the parameters state none.
        fits: With a Kubernetes version: yes, not known or no; else empty.
        release: The release for that version; empty for none.
        why: Why it does not fit, or is not known to.
        newest: The newest Kubernetes that it fits.
        instead: Living plugins that fit the version.
    """

    plugin: str
    status: str
    released: str
    kubernetes: str
    install: str
    network: str
    policy: str
    encryption: str
    ipv6: str
    pod_cidr: str
    fits: str = ""
    release: str = ""
    why: str = ""
    newest: str = ""
    instead: tuple[str, ...] = ()

    @property
    def living(self) -> bool:
        """True where somebody looks after it."""
        return self.status in ("maintained", "commercial")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a plugin's page.

    Attributes:
        title: Its heading.
        lines: (what, value); a line of the same `what` as the one before has it empty.
    """

    title: str
    lines: tuple[tuple[str, str], ...]


def rows(known: Mapping[str, Plugin], version: str = "") -> list[Row]:
    """Return the table's rows: what fits first, then the living, then by name.

    Args:
        known: The catalogue.
        version: A Kubernetes version that each plugin is judged for; empty for none.

    Raises:
        ParamsError: That is no version.
    """
    if version:
        _checked(version)
    found = [_row(plugin, known, version) for plugin in known.values()]
    fits = [Fits.YES, Fits.UNKNOWN, Fits.NO, ""]
    return sorted(
        found, key=lambda row: (fits.index(row.fits), _LIVING.index(row.status), row.plugin)
    )


def manifest(plugin: Plugin, version: str = "", source: str = "") -> str:
    """Return a plugin's manifest as a Kubernetes version would have to get it, as YAML.

    What was changed, and what no manifest can mend, stands above it as comments.

    Args:
        plugin: The plugin.
        version: Such as 1.31; empty is the newest that the plugin is known to work with.
        source: An address or a file to take instead of upstream's.

    Raises:
        ParamsError: It has no manifest, or none that can be read.
        PreconditionError: It is not the file that the catalogue knows.
    """
    wanted = version or plugin.kubernetes.max
    _checked(wanted)
    where, text = fetch_release(plugin, wanted, source)
    shown, notes = shown_manifest(plugin, wanted, text)
    above = [f"{plugin.title} for Kubernetes {wanted}, from {where}", *notes]
    return "".join(f"# {' '.join(line.split())}\n" for line in above) + shown


def overview(found: Sequence[Row], width: int, version: str = "") -> RenderableType:
    """Return the table, with a line for each plugin that does not fit and what to do instead.

    Args:
        found: What `rows` returned.
        width: The terminal's columns.
        version: The Kubernetes version of the judgement; empty for none.
    """
    narrow = width < NARROW
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 0 if narrow else 1, 0, 0), pad_edge=False, show_edge=False
    )
    flags = ("policy", "encryption", "IPv6") if not narrow else ("pol", "enc", "v6")
    judged = f"for {version}" if version else "Kubernetes"
    names = ("plugin", "status", judged, "by" if narrow else "installed by", "between nodes")
    for name in (*names, *flags, "pod CIDR"):
        wraps = name in (judged, "between nodes", "encryption")
        table.add_column(name, no_wrap=not wraps)
    for row in found:
        encryption = row.encryption or "no"
        table.add_row(
            row.plugin,
            row.status if narrow else f"{row.status}, {row.released}",
            (row.release or row.fits) if version else row.kubernetes,
            row.install,
            row.network,
            row.policy,
            ("yes" if row.encryption else "no") if narrow else encryption,
            row.ipv6 or "?",
            row.pod_cidr,
            style="" if row.living else "dim",
        )
    notes = [f"{row.plugin} {_note(row)}." for row in found if row.why]
    if narrow:
        notes.append("pol: NetworkPolicy. enc: encryption between nodes. v6: IPv6.")
    notes.append(
        "+50: bytes of the MTU. ?: not stated. archived, retired: nobody mends it any more."
    )
    notes.append("kit plugins NAME: all of one. kit plugins --for 1.31: what fits that Kubernetes.")
    wrapped = [fill(note, max(width, 40), subsequent_indent="  ") for note in notes]
    return Group(table, Text(), *map(Text, wrapped))


def page(plugin: Plugin, known: Mapping[str, Plugin], width: int, version: str = "") -> Text:
    """Return everything about one plugin, in the order in which a person asks.

    What may be pasted (an address, a checksum) is never broken over two lines.

    Args:
        plugin: The plugin.
        known: The catalogue, for what else there is.
        width: The terminal's columns.
        version: A Kubernetes version that it is judged for; empty for none.

    Raises:
        ParamsError: That is no version.
    """
    width = max(width, 40)
    shown = Text()
    shown.append(f"{plugin.title} ({plugin.name})\n", style="bold")
    shown.append(fill(plugin.what, width) + "\n")
    for part in sections(plugin, known, version):
        shown.append(f"\n{part.title}\n", style="bold")
        label = max(len(what) for what, _ in part.lines)
        indent = " " * (label + 4 if label else 2)
        for what, value in part.lines:
            first = f"  {what:<{label}}  " if label else "  "
            lines = wrap(
                value,
                width,
                initial_indent=first,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            shown.append("\n".join(lines or [first]) + "\n")
    shown.rstrip()
    return shown


def as_data(found: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the table for a script."""
    return [asdict(row) for row in found]


def sections(plugin: Plugin, known: Mapping[str, Plugin], version: str = "") -> list[Section]:
    """Return the parts of a plugin's page; parts without a line are left out."""
    if version:
        _checked(version)
    parts = {
        "Status": _status(plugin, known, version),
        "Network": _network(plugin),
        "Installed by": _install(plugin),
        "Needs": _needs(plugin),
        "Parameters": _parameters(plugin),
        "Healthy when": _health(plugin),
        "On each host": _host(plugin),
        "Leftovers": _leftovers(plugin),
        "Hazards and traps": _dangers(plugin),
        "Sources": (("", each) for each in plugin.sources),
    }
    found = ((title, _grouped(lines)) for title, lines in parts.items())
    return [Section(title, lines) for title, lines in found if lines]


def _checked(version: str) -> None:
    try:
        minor(version)
    except ValueError:
        raise ParamsError(
            f"--for {version}: not a Kubernetes version",
            remedy="write major and minor, such as 1.31; the patch may follow",
        ) from None


def _row(plugin: Plugin, known: Mapping[str, Plugin], version: str) -> Row:
    release = plugin.release_for(version) if version else None
    found = fit(plugin, version, known) if version else None
    way = "manifest" if plugin.manifest else "chart" if plugin.chart else "per host"
    network = "routes, +0"
    if plugin.overhead_bytes:
        network = f"{plugin.encapsulation} +{plugin.overhead_bytes}"
    if plugin.needs.delegate:
        network = f"as {plugin.needs.delegate}"
    return Row(
        plugin=plugin.name,
        status=plugin.status.state,
        released=plugin.status.released[:7],
        kubernetes=f"{plugin.kubernetes.min}-{plugin.kubernetes.max}",
        install=way,
        network=network,
        policy="yes" if plugin.network_policy else "no",
        encryption=", ".join(each.split()[0].strip(",") for each in plugin.encryption),
        ipv6="" if plugin.ipv6 == "not stated" else plugin.ipv6,
        pod_cidr=str(plugin.pod_cidr.default),
        fits=found.answer if found else "",
        release=release.version if release and found and found.answer is not Fits.NO else "",
        why="; ".join(found.reasons) if found else "",
        newest=found.newest if found else "",
        instead=found.instead if found else (),
    )


def _note(row: Row) -> str:
    if not row.why:
        return "fits" + (f": release {row.release}" if row.release else "")
    words = f"{'may fit' if row.fits == Fits.UNKNOWN else 'does not fit'}: {row.why}"
    words += f"; the newest that fits is {row.newest}" if row.newest else ""
    return words + (f"; living instead: {', '.join(row.instead)}" if row.instead else "")


def _grouped(lines: Iterator[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the lines that say something, each `what` named once."""
    found: list[tuple[str, str]] = []
    last = ""
    for what, value in lines:
        if value:
            found.append(("" if what == last else what, value))
            last = what
    return tuple(found)


def _status(plugin: Plugin, known: Mapping[str, Plugin], version: str) -> Iterator[tuple[str, str]]:
    state, span = plugin.status, plugin.kubernetes
    yield "project", f"{state.state}; the last release is {state.latest} of {state.released}"
    yield "", state.note
    yield "living instead", ", ".join(state.instead)
    yield "Kubernetes", f"{span.min} to {span.max}"
    yield "", span.note
    for each in span.breaks:
        yield f"broken since {each.since}", each.why
    if version:
        yield f"for {version}", _note(_row(plugin, known, version))


def _network(plugin: Plugin) -> Iterator[tuple[str, str]]:
    pods = plugin.pod_cidr
    yield "datapath", plugin.datapath
    yield "layer", plugin.layer
    yield (
        "between nodes",
        f"{plugin.encapsulation or 'not wrapped'}; {plugin.overhead_bytes} bytes of the MTU",
    )
    yield "pod CIDR", f"{pods.default} where the parameters state none; {pods.block}"
    if pods.prefix is not None:
        yield "", f"it takes a /{pods.prefix} alone"
    yield (
        "pod CIDR is in",
        where(pods.stated_in) if pods.stated_in else "no manifest: each Node's podCIDR",
    )
    yield "NetworkPolicy", "yes" if plugin.network_policy else "no"
    yield "encryption", ", ".join(plugin.encryption) or "none"
    yield "IPv6", plugin.ipv6


def _install(plugin: Plugin) -> Iterator[tuple[str, str]]:
    if plugin.per_node:
        yield "the kit", f"writes {plugin.per_node.file} and the routes on each host; no manifest"
    if plugin.chart:
        chart = plugin.chart
        yield "chart", f"{chart.name} of {chart.repository}, for namespace {chart.namespace}"
        for key, value in chart.values.items():
            yield "values set", f"{key}: {value}"
    for each in plugin.releases:
        span = each.kubernetes
        yield "release", f"{each.version} for {span.min} to {span.max}" + _in_brackets(span.note)
        for address in plugin.addresses_of(each):
            name = address.rpartition("/")[2]
            known = each.sha256.get(name)
            yield "", address
            yield "", f"sha256:{known}" if known else "its checksum is not known"
    yield from _setting("MTU is in", plugin.mtu, "it finds the MTU by itself")
    yield from _setting("backend is in", plugin.backend, "")


def _setting(what: str, setting: Setting | None, none: str) -> Iterator[tuple[str, str]]:
    if setting is None:
        yield what, none
        return
    for place in setting.places:
        yield what, where(place)
    words = [
        word if word == written else f"{word} ({written})"
        for word, written in setting.values.items()
    ]
    yield "", f"one of {', '.join(words)}" if words else ""


def _needs(plugin: Plugin) -> Iterator[tuple[str, str]]:
    needs = plugin.needs
    flags = [f"--pod-network-cidr={plugin.pod_cidr.default}"] if needs.node_pod_cidr else []
    flags += [f"--service-cidr={needs.service_cidr}"] if needs.service_cidr else []
    flags += ["--skip-phases=addon/kube-proxy"] if needs.kube_proxy == "absent" else []
    yield "kubeadm init", " ".join(flags) or "no flag of its own"
    yield "kube-proxy", needs.kube_proxy
    yield "kernel", f"{needs.kernel} or newer" if needs.kernel else ""
    yield "modules", ", ".join(needs.modules)
    for key, value in needs.sysctls.items():
        yield "sysctls", f"{key} = {value}"
    for port in plugin.ports:
        yield "ports", f"{port.port}/{port.protocol}: {port.what}"
    for key, value in needs.node_labels.items():
        yield "node labels", f"{key}={value}"
    for key, value in needs.control_plane_labels.items():
        yield "node labels", f"{key}={value}, of control planes"
    yield "applied after", needs.delegate


def _parameters(plugin: Plugin) -> Iterator[tuple[str, str]]:
    for each in plugin.parameters:
        default = f"default {each.default}" if each.default else "required"
        secret = "; never shown or recorded" if each.secret else ""
        dummy = f"; upstream's file has {each.dummy} there" if each.dummy else ""
        yield each.name, f"{each.what} ({default}{secret}{dummy})"
        yield from (("", where(place)) for place in each.places)


def _health(plugin: Plugin) -> Iterator[tuple[str, str]]:
    for each in plugin.workloads:
        labels = ",".join(f"{key}={value}" for key, value in each.selector.items())
        nodes = f" on {each.nodes.replace('_', ' ')} nodes" if each.kind == "DaemonSet" else ""
        waits = "" if each.starts_on_not_ready else "; it starts once nodes are Ready"
        yield each.kind, f"{each.namespace}/{each.name}{nodes}, pods {labels}{waits}"
    reason = plugin.node_condition_reason
    yield "Node condition", f"NetworkUnavailable is False by {reason}" if reason else ""


def _host(plugin: Plugin) -> Iterator[tuple[str, str]]:
    cni, devices = plugin.cni, plugin.interfaces
    yield "in /etc/cni/net.d", ", ".join((*cni.files, *cni.extra_files))
    yield "CNI types", ", ".join(cni.types)
    yield "in /opt/cni/bin", ", ".join(cni.binaries)
    yield "pods are at", f"{devices.pod.name} ({devices.pod.kind})"
    yield "host's routes", devices.pod.host_routes
    yield "tunnel", devices.tunnel
    yield "its devices", ", ".join(devices.owned)


def _leftovers(plugin: Plugin) -> Iterator[tuple[str, str]]:
    for name, value in plugin.leftovers:
        shown = [str(each) for each in value]
        what = name.replace("_", " ")
        if name == "paths":
            yield from ((what, each) for each in shown)
        else:
            yield what, ", ".join(shown)


def _dangers(plugin: Plugin) -> Iterator[tuple[str, str]]:
    hazards = plugin.hazards
    if hazards.moves_host_address:
        yield "host address", "it moves the host's own address to a bridge, which can cut SSH off"
    yield "CNI directories", hazards.cni_directory
    if hazards.private_images:
        yield "images", "in no public registry"
    for trap in plugin.traps:
        yield f"trap since {trap.since}" if trap.since else "trap", trap.what
        yield "", f"-> {trap.handled}"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def where(place: Place) -> str:
    """Return in words where an object states a value."""
    form = f", written as {place.form}" if place.form != "{}" else ""
    thing = f"{place.kind} {f'{place.namespace}/' if place.namespace else ''}{place.name}"
    return _spot(place, thing.strip()) + form


def _spot(place: Place, thing: str) -> str:
    if place.placeholder:
        return f"the words {place.placeholder}" + (f" in {thing}" if thing else "")
    if place.key:
        return f"{thing}, key {place.key}" + (f", {place.path} in it" if place.path else "")
    if place.env:
        return f"{thing}, variable {place.env}"
    if place.argument:
        return f"{thing}, argument {place.argument}"
    return f"{thing}, field {place.field}"
