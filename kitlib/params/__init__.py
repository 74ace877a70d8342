"""What is wanted: one YAML file that describes a cluster, checked whole before anything is touched.

Every problem of the file (and of the options given beside it) is reported at once, each as
`file: key: value: rule`. Nothing secret belongs in a parameter file.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kitlib import plugins
from kitlib.errors import ParamsError, Problem
from kitlib.inventory import Host, Role, Taint
from kitlib.params.diagnose import Diagnose, Probe
from kitlib.params.inherit import with_inherited
from kitlib.params.notebook import check_notebook_parameters
from kitlib.params.own import DIRECTORY, catalogue_beside, own_plugins
from kitlib.params.plugin import from_environment, plugin_findings
from kitlib.params.reading import Document, Key, Written, dotted, read_yaml
from kitlib.params.rules import absolute, cross_checks, is_address
from kitlib.params.schema import ClusterSheet, HostEntry, Sheet, Ssh, Timeouts, rule_of
from kitlib.params.software import Packages, Proxy, mask_address
from kitlib.params.values import Params
from kitlib.plugins import Catalogue

__all__ = [
    "Diagnose",
    "Packages",
    "Params",
    "Probe",
    "Proxy",
    "Ssh",
    "Timeouts",
    "catalogue_beside",
    "check_notebook_parameters",
    "load",
    "of_cluster",
]


_LONGEST_SHOWN = 200


def load(path: str | Path, overrides: Mapping[str, object] | None = None) -> Params:
    """Return the validated parameters of one file.

    Args:
        path: The parameter file.
        overrides: Values given as options, by key, which replace the file's: `--plugin` is
            {"plugin": ...}, `--rounds` {"diagnose.rounds": ...}. An option that was not given is
            None, or absent. Paths in them start from the current directory, not from the file's.

    Raises:
        ParamsError: The file cannot be read, or anything in it is wrong; all problems at once.
    """
    source = absolute(str(path), Path.cwd())
    shown = str(path)
    document = _read(source, shown)
    if document.data is None and document.problems:
        raise ParamsError(document.problems)
    if isinstance(document.data, dict) and document.data.get("kind") == "Config":
        raise ParamsError(
            f"{shown}: a kubeconfig (kind: Config), where a parameter file is wanted",
            remedy="kit diagnose and the diagnostic notebooks take it; params/example.yaml is one",
        )
    options = _options(overrides)
    data = laid_over(document.data or {}, options)
    for name in options:
        document.written.pop(tuple(name.split(".")), None)

    problems = _Problems(shown, document, frozenset(options))
    own, wrong = own_plugins(source.parent / DIRECTORY)
    known = plugins.catalogue().and_own(own)
    sheet = _validate(data, problems)
    for key, value, rule in (
        *cross_checks(data, source.parent, known),
        *plugin_findings(data, known),
    ):
        problems.add(key, value, rule)
    if sheet is None or problems.found or wrong:
        raise ParamsError(wrong + problems.found)
    return _params(sheet, source, known.asking_first(sheet.plugin))


def of_cluster(
    path: Path,
    found: Mapping[str, Any],
    overrides: Mapping[str, object] | None = None,
    *,
    runs: Path,
) -> Params:
    """Return the parameters of a cluster that was asked what it is.

    Args:
        path: The kubeconfig that leads to it.
        found: What was found (`living.look_at`).
        overrides: Values given as options, as for `load`; what they leave open is the default.
        runs: Where run directories go, unless an option says otherwise.

    Raises:
        ParamsError: An option is wrong.
    """
    options = _options(overrides)
    keys = ("cluster", "kubernetes_version", "plugin", "plugin_delegate", "pod_cidr", "hosts")
    data = {key: found[key] for key in keys}
    data["plugin_backend"] = found.get("plugin_backend", "")
    if options.get("plugin") not in (None, data["plugin"]):  # then these are another one's
        data |= {"plugin_delegate": "", "plugin_backend": ""}
    if found["service_cidr"]:
        data["service_cidr"] = found["service_cidr"]
    data = laid_over({**data, "runs": str(runs), "api_access": "direct"}, options)
    problems = _Problems(str(path), Document(data), frozenset(options))
    own, wrong = own_plugins(path.parent / DIRECTORY)
    known = plugins.catalogue().and_own(own)
    plugin = str(data["plugin"])
    if plugin and plugin not in known:
        problems.add(("plugin",), plugin, f"unknown plugin, known are {', '.join(known)}")
    sheet = _validate(data, problems, ClusterSheet)
    if sheet is None or problems.found or wrong:
        raise ParamsError(wrong + problems.found)
    return _params(sheet, path, known.asking_first(plugin))


def laid_over(data: Mapping[str, Any], options: Mapping[str, object]) -> dict[str, Any]:
    """Return the values with options laid over them: `diagnose.rounds` is a key of a section."""
    result = dict(data)
    for name, value in options.items():
        section, dot, key = name.partition(".")
        if not dot:
            result[name] = value
        elif isinstance(result.get(section, {}), Mapping):  # else that is its own problem
            result[section] = {**result.get(section, {}), key: value}
    return result


def _options(overrides: Mapping[str, object] | None) -> dict[str, object]:
    return {
        name: _from_here(name, value)
        for name, value in (overrides or {}).items()
        if value is not None
    }


class _Problems:
    """Collects problems as `file: key: value: rule`, an option's as `option --name: ...`."""

    def __init__(self, file: str, document: Document, options: frozenset[str]) -> None:
        self._file = file
        self._written = document.written
        self._options = options
        self.found: list[Problem] = list(document.problems)

    def add(self, key: Key, value: object, rule: str) -> None:
        """Note one problem, once."""
        value = self._written.get(key, value)
        if isinstance(value, (dict, list)):
            value = Written("a mapping" if isinstance(value, dict) else "a list")
        if isinstance(value, str):
            value = type(value)(mask_address(value))
        if len(str(value)) > _LONGEST_SHOWN:
            value = str(value)[:_LONGEST_SHOWN] + "..."
        if key and self._options & {dotted(key), str(key[0])}:
            name = str(key[0]).replace("_", "-")
            option = f"--{name}" if str(key[0]) in self._options else f"--set {dotted(key)}"
            problem = Problem(f"option {option}: {value!r}: {rule}")
        else:
            problem = Problem.of(self._file, dotted(key), value, rule)
        if problem not in self.found:
            self.found.append(problem)


def _read(source: Path, shown: str) -> Document:
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{shown}: no such file") from None
    except OSError as error:
        raise ParamsError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{shown}: not a text file in UTF-8: {error.reason}") from error
    document = read_yaml(text, shown)
    if not isinstance(document.data, dict) and not document.problems:
        raise ParamsError(f"{shown}: not a mapping of parameters (key: value)")
    return document


def _validate(
    data: dict[str, Any], problems: _Problems, sheet: type[Sheet] = Sheet
) -> Sheet | None:
    try:
        return sheet.model_validate(data)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            problems.add(each["loc"], each["input"], rule_of(dict(each)))
        return None


def _params(sheet: Sheet, source: Path, known: Catalogue) -> Params:
    here = source.parent
    ssh = Ssh(
        user=sheet.ssh.user,
        identity_file=_path(sheet.ssh.identity_file, here),
        config=_path(sheet.ssh.config, here),
        known_hosts=_path(sheet.ssh.known_hosts or "~/.ssh/known_hosts", here),
        connect_timeout=sheet.ssh.connect_timeout,
        keepalive=sheet.ssh.keepalive,
        become=sheet.ssh.become,
        become_password_env=sheet.ssh.become_password_env,
        become_password_file=_path(sheet.ssh.become_password_file, here),
    )
    stated = sheet.model_dump(mode="json", include={"defaults", "groups"}, exclude_unset=True)
    hosts = tuple(_host(host, stated, ssh, here) for host in sheet.hosts)
    return Params(
        source=source,
        catalogue=known,
        cluster=sheet.cluster,
        kubernetes_version=sheet.kubernetes_version,
        plugin=sheet.plugin,
        plugin_delegate=sheet.plugin_delegate,
        plugin_manifest=_place(sheet.plugin_manifest, here),
        plugin_source=_place(sheet.plugin_source, here),
        plugin_backend=sheet.plugin_backend,
        plugin_parameters={
            name: from_environment(str(value)) or ""
            for name, value in sheet.plugin_parameters.items()
        },
        pod_mtu=sheet.pod_mtu,
        image_registry=sheet.image_registry.rstrip("/"),
        allow_unsupported=sheet.allow_unsupported,
        pod_cidr=IPv4Network(sheet.pod_cidr) if sheet.pod_cidr else None,
        service_cidr=IPv4Network(sheet.service_cidr),
        control_plane_endpoint=sheet.control_plane_endpoint,
        confirm_reset=sheet.confirm_reset,
        defaults=stated.get("defaults", {}),
        groups=stated.get("groups", {}),
        hosts=hosts,
        ssh=ssh,
        api_access=sheet.api_access,
        probe=sheet.probe,
        diagnose=sheet.diagnose,
        timeouts=sheet.timeouts,
        runs=_path(sheet.runs, here) or _path("../runs", here) or here,
        swap=sheet.swap,
        packages=Packages(
            **{
                **sheet.packages.model_dump(),
                "directory": _path(sheet.packages.directory, here),
            }
        ),
        proxy=sheet.proxy,
    )


def _host(entry: HostEntry, stated: Mapping[str, Any], ssh: Ssh, here: Path) -> Host:
    """Return one host with what it inherits."""
    own = entry.model_dump(exclude_unset=True)
    host = HostEntry.model_validate(with_inherited(own, stated))
    return Host(
        name=host.name,
        address=host.address,
        port=host.port,
        role=Role(host.role),
        user=host.user or ssh.user,
        identity_file=_path(host.identity_file, here) or ssh.identity_file,
        labels=host.labels,
        node_address=host.node_address or host.address,
        taints=tuple(Taint.parse(text) for text in host.taints),
        groups=tuple(host.group),
    )


def _from_here(name: str, value: object) -> object:
    """Return an option's value, a path in it made absolute from the current directory."""
    if name in ("plugin_manifest", "plugin_source", "runs") and isinstance(value, (str, Path)):
        return _place(str(value), Path.cwd())
    return value


def _path(text: str, here: Path) -> Path | None:
    """Return `text` as an absolute path, seen from `here`; None when it is empty."""
    return absolute(text, here) if text else None


def _place(text: str, here: Path) -> str:
    """Return an address as it is and a path made absolute; empty stays empty."""
    return text if is_address(text) else str(_path(text, here) or "")
