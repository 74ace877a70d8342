"""`kit bundle`: packages, images and a manifest into a directory, for hosts without internet.

They are collected on one host of the parameter file that has internet and the packages stage behind
it: a host of the same system and architecture is what says which packages, in which versions, a
node of that system needs. It may be this very machine, reached as 127.0.0.1.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from kitlib.command import Cmd, script
from kitlib.errors import CommandError, ParamsError, ParseError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.manifests import images_of, parse_image, prepare, read
from kitlib.session import Session
from kitlib.software.apt import VERSIONED
from kitlib.software.bundle import (
    MANIFEST,
    SUMS,
    Archive,
    Bundle,
    image_file_name,
    sha256,
    sums,
)
from kitlib.software.containerd import sandbox_image
from kitlib.stages.base import Action, Hands
from kitlib.stages.fetching import fetch_all

__all__ = ["bundle"]

WORK = "/var/cache/kubekit-bundle"
SECONDS = 1800
_TOOLS = ("apt-get", "apt-cache", "dpkg-query", "kubeadm", "ctr", "sha256sum")

_CLOSURE = """\
set -e
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
: > "$d/status"
on_empty() {
  apt-get install -s -q --no-install-recommends -o Dir::State::status="$d/status" "$@" \
    | sed -n -E 's/^Inst ([^ :]+)[^ ]* \\(([^ )]+).*/\\1=\\2/p'
}
base=$(dpkg-query -W -f '${Package} ${Priority} ${Essential}\\n' \
  | awk '$2 == "required" || $3 == "yes" || $1 == "apt" {print $1}')
: > "$d/base"
if [ -n "$base" ]; then on_empty $base | cut -d= -f1 | sort > "$d/base"; fi
on_empty "$@" | while IFS= read -r each; do
  grep -qxF "${each%%=*}" "$d/base" || printf '%s\\n' "$each"
done
"""
"""Prints `name=version` of the given packages and of all that they need and that the smallest
installation of the system does not have: what apt would install on a machine with nothing."""

_DOWNLOAD = 'set -e; mkdir -p "$1"; cd "$1"; shift; apt-get download -q "$@" >&2'
_PULL = """\
set -e
if command -v crictl >/dev/null; then crictl pull "$1" >&2
else ctr -n k8s.io images pull --platform "linux/$3" "$1" >&2; fi
mkdir -p "$(dirname "$2")"
ctr -n k8s.io images export --platform "linux/$3" "$2" "$1"
"""
_LIST = 'cd "$1" && for f in *; do [ -f "$f" ] && sha256sum "$f"; done; :'


def bundle(session: Session, target: Path, host: str = "") -> Bundle:
    """Return the bundle that was written into a directory.

    Args:
        session: A session with the parameters of the wanted cluster.
        target: The directory; it must be empty, or not exist.
        host: The host that collects; empty is the control plane.

    Raises:
        ParamsError: There is no such host, or the directory holds something.
        PreconditionError: The host is not prepared for it; all that is missing is named.
        CommandError: A download failed.
    """
    name = host or session.params.control_plane.name
    if name not in [each.name for each in session.params.hosts]:
        raise ParamsError(f"option --host: {name}: no host of that name in the parameters")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ParamsError(f"{target}: not an empty directory", remedy="name one that is new")
    here = session.doors.facts([name], fresh=True).raise_first()[name]
    _prepared(session, name, here)
    return _Collector(session, name, here, target).collect()


def _prepared(session: Session, name: str, here: HostFacts) -> None:
    version = session.params.kubernetes_version
    look = script('for t; do command -v "$t" >/dev/null || echo "$t"; done', *_TOOLS)
    missing = session.doors.run(name, look).stdout.split()
    wrong = [f"{tool} is not there" for tool in missing]
    wrong += [
        f"{package} is {here.version(package) or 'not installed'}, wanted is {version}"
        for package in VERSIONED
        if here.version(package) != version
    ]
    if not here.runtime.unit.startswith("active"):
        wrong.append("containerd does not run")
    if wrong:
        raise PreconditionError(
            f"bundle: {name} cannot collect: {'; '.join(wrong)}",
            remedy="a host with apt-get and internet is needed; `kit stage packages` with these "
            "parameters prepares it",
        )


class _Collector:
    def __init__(self, session: Session, name: str, here: HostFacts, target: Path) -> None:
        self._session = session
        self._name = name
        self._here = here
        self._target = target
        self._architecture = self._read(Cmd.of("dpkg", "--print-architecture")).strip()

    def collect(self) -> Bundle:
        """Return the bundle; the host keeps nothing but the pulled images."""
        params = self._session.params
        # A network that is written on each host has no manifest to take along.
        where, text = fetch_all(params) if self._session.plugin.per_node is None else ("", "")
        try:
            packages = self._packages()
            images = self._images(text, where)
        finally:
            self._do("remove the collected files", Cmd.change("rm", "-rf", WORK))
        lab = self._here.host.lab
        made = Bundle(
            directory=self._target,
            kubernetes_version=params.kubernetes_version,
            plugin=params.plugin,
            system=f"{self._here.host.os_id} {self._here.host.os_version}",
            architecture=self._architecture,
            emulated="made in a lab: its packages and images are emulated" if lab else "",
            packages=packages,
            images=images,
        )
        self._write(made, text)
        return made

    def _packages(self) -> tuple[Archive, ...]:
        version = self._session.params.kubernetes_version
        runtime = "containerd.io" if self._here.version("containerd.io") else "containerd"
        wanted = [f"{each}={version}-*" for each in VERSIONED] + ["kubernetes-cni", "cri-tools"]
        closure = script(_CLOSURE, *wanted, runtime, timeout=SECONDS, label="what a node needs")
        needed = self._read(closure).split()
        if not needed:
            raise ParseError(f"bundle: {self._name}: apt-get named no package that a node needs")
        folder = f"{WORK}/packages"
        run = script(
            _DOWNLOAD, folder, *needed, mutates=True, timeout=SECONDS, label="apt-get download"
        )
        self._do(f"download {len(needed)} packages: {', '.join(needed)}", run)
        found = []
        for file, digest in self._listed(folder).items():
            package, package_version, _ = file.removesuffix(".deb").split("_")
            plain = package_version.replace("%3a", ":")
            found.append(self._take(f"packages/{file}", f"{folder}/{file}", package, plain, digest))
        return tuple(found)

    def _images(self, manifest: str, where: str) -> tuple[Archive, ...]:
        params = self._session.params
        listing = Cmd.of(
            "kubeadm", "config", "images", "list",
            "--kubernetes-version", f"v{params.kubernetes_version}",
        )  # fmt: skip
        wanted = [*self._read(listing).split(), sandbox_image(params.kubernetes_version)]
        plugin = self._session.plugin
        if manifest:
            wanted += images_of(prepare(read(manifest, where), plugin, params, where=where).objects)
        wanted += [params.probe.image, params.diagnose.image]
        folder, names = f"{WORK}/images", {}
        for image in dict.fromkeys(parse_image(each).full for each in wanted):
            file = names[image] = image_file_name(image)
            pull = script(
                _PULL, image, f"{folder}/{file}", self._architecture,
                mutates=True, timeout=SECONDS, label=f"pull and export {image}",
            )  # fmt: skip
            self._do(f"pull and export {image}", pull)
        digests = self._listed(folder)
        return tuple(
            self._take(f"images/{file}", f"{folder}/{file}", image, "", digests[file])
            for image, file in names.items()
        )

    def _take(self, file: str, remote: str, name: str, version: str, digest: str) -> Archive:
        """Copy one file here, and see that it arrived as it was."""
        path = self._target / file
        path.parent.mkdir(parents=True, exist_ok=True)
        self._session.doors.fetch(self._name, remote, path)
        if sha256(path) != digest:
            raise CommandError(self._name, f"copy {remote}", None, "it did not arrive as it was")
        return Archive(file, name, version, digest, path.stat().st_size)

    def _write(self, made: Bundle, manifest: str) -> None:
        written = [MANIFEST]
        if manifest:
            written.append(f"{made.plugin}.yaml")
            (self._target / written[-1]).write_text(manifest)
        (self._target / MANIFEST).write_text(made.manifest())
        digests = {each.file: each.sha256 for each in (*made.packages, *made.images)}
        digests |= {name: sha256(self._target / name) for name in written}
        (self._target / SUMS).write_text(sums(digests))

    def _listed(self, folder: str) -> dict[str, str]:
        rows = (line.split(None, 1) for line in self._read(script(_LIST, folder)).splitlines())
        return {PurePosixPath(file.strip()).name: digest for digest, file in rows}

    def _read(self, cmd: Cmd) -> str:
        result = self._session.context.read(self._name, cmd)
        if not result.ok:
            raise CommandError(self._name, result.command, result.exit_status, result.tail())
        return result.stdout

    def _do(self, what: str, cmd: Cmd) -> None:
        def run(hands: Hands) -> None:
            hands.run(self._name, cmd)

        self._session.context.perform(Action(self._name, what, cmd, do=run))
