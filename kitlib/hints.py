"""What an error text means and what to do about it: the messages that people really meet.

The table is data. A pattern is matched anywhere in the text, so it names the part of a message that
stays the same between versions and runtimes. Specific entries stand before general ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["HINTS", "Hint", "explain"]


@dataclass(frozen=True, slots=True)
class Hint:
    """One known message.

    Attributes:
        id: Stable name.
        pattern: Regular expression; matched anywhere, case ignored.
        cause: What the message means.
        remedy: What to do.
        notebook: The notebook that goes on from here, by its file name without the ending; or "".
    """

    id: str
    pattern: str
    cause: str
    remedy: str
    notebook: str = ""


PREFLIGHT = "01_preflight"
RESET = "02_reset"
PACKAGES = "03_packages"
INIT = "04_init"
NETWORK = "05_network"
JOIN = "06_join"
READY = "07_ready"

HINTS: tuple[Hint, ...] = (
    # the hosts are a lab's, and the lab is not there
    Hint(
        "lab-not-up",
        r"no such private key: .*/\.lab/|@127\.0\.0\.1:\d+\): cannot connect",
        "the parameters name hosts of the lab on this machine, and it does not run",
        "kit lab up",
    ),
    # kubeadm init and join: the preflight errors
    Hint(
        "already-in-a-cluster",
        r"FileAvailable--etc-kubernetes-kubelet\.conf",
        "the host is a member of a cluster already (or of one that is gone), so kubeadm will not "
        "join it to another",
        "if it is in the wanted cluster there is nothing to do; else run the reset stage for this "
        "host first",
        RESET,
    ),
    Hint(
        "init-twice",
        r"FileAvailable--etc-kubernetes-manifests|DirAvailable--var-lib-etcd",
        "`kubeadm init` has run on this host before, or is running beside this one: its files are "
        "there",
        "if the cluster is the wanted one, go on with the next stage; else run the reset stage, "
        "which clears what a half-done init left",
        RESET,
    ),
    Hint(
        "ca-left",
        r"FileAvailable--etc-kubernetes-pki-ca\.crt",
        "the CA certificate of an earlier cluster is still on the host",
        "run the reset stage for this host",
        RESET,
    ),
    Hint(
        "port-in-use",
        r"\[ERROR Port-\d+\]|Port \d+ is in use",
        "a port that kubeadm needs is taken; usually by a control plane or a kubelet that is here "
        "already",
        "ss -ltnp shows by whom; if it is an old cluster's, run the reset stage for this host",
        RESET,
    ),
    Hint(
        "bridge-netfilter",
        r"bridge-nf-call-iptables (contents are not set to 1|does not exist)"
        r"|bridge-nf-call-iptables: no such file",
        "packets between pods on one bridge bypass iptables, so Services would not work: "
        "br_netfilter is not loaded, or its setting is 0",
        "modprobe br_netfilter, and net.bridge.bridge-nf-call-iptables = 1 in /etc/sysctl.d",
        PREFLIGHT,
    ),
    Hint(
        "ip-forward",
        r"ip_forward contents are not set to 1",
        "the host does not forward packets, so pods on other hosts cannot be reached",
        "net.ipv4.ip_forward = 1 in /etc/sysctl.d, then sysctl --system",
        PREFLIGHT,
    ),
    Hint(
        "swap",
        r"\[(ERROR|WARNING) Swap\]|running with swap on is not supported",
        "swap is on; the kubelet does not start with it",
        "swapoff -a, and take the swap lines out of /etc/fstab",
        PREFLIGHT,
    ),
    Hint(
        "cpus",
        r"\[ERROR NumCPU\]",
        "a control plane needs two processors at least",
        "use a larger machine",
        PREFLIGHT,
    ),
    Hint(
        "memory",
        r"\[ERROR Mem\]",
        "a control plane needs 1700 MB of memory at least",
        "use a larger machine",
        PREFLIGHT,
    ),
    Hint(
        "not-root",
        r"\[ERROR IsPrivilegedUser\]|user is not running as root",
        "kubeadm must run as root",
        "log in as root (ssh.user in the parameters)",
        PREFLIGHT,
    ),
    Hint(
        "hostname",
        r"WARNING Hostname\]|nodeName:? .*Invalid value|the specified hostname is invalid",
        "the host's name is not one that a Node can have, or does not resolve",
        "hostnamectl set-hostname with lower-case letters, digits and -, and a line in /etc/hosts",
        PREFLIGHT,
    ),
    Hint(
        "runtime-down",
        r"container runtime is not running|docker is required for container runtime"
        r"|Couldn't create the interface used for talking to the container runtime"
        r"|connect endpoint 'unix:///run/containerd/containerd\.sock'"
        r"|containerd\.sock: connect: (connection refused|no such file or directory)",
        "the container runtime does not run (without its socket, old kubeadm versions look for "
        "docker instead)",
        "systemctl start containerd, then journalctl -u containerd",
        PREFLIGHT,
    ),
    Hint(
        "version-skew",
        r"Kubernetes version is greater than kubeadm version"
        r"|this version of kubeadm only supports deploying clusters",
        "kubeadm is older than the Kubernetes version it was asked for (or much newer)",
        "install kubeadm in the wanted version: run the packages stage",
        PACKAGES,
    ),
    Hint(
        "kubelet-version",
        r"\[ERROR KubeletVersion\]",
        "the kubelet on the host is newer than the control plane, which is not supported",
        "run the packages stage, so that all hosts have the wanted version",
        PACKAGES,
    ),
    # kubeadm join: discovery
    Hint(
        "token",
        r"could not find a JWS signature in the cluster-info ConfigMap for token ID",
        "the token is expired, deleted or misspelt; kubeadm waits 300 s before it says so",
        "make a new one: kubeadm token create --print-join-command (the join stage does)",
        JOIN,
    ),
    Hint(
        "token-form",
        r'the bootstrap token ".*" was not of the form|token .* invalid.*not of the form',
        "that is not a token: six characters, a dot, sixteen characters",
        "make a new one: kubeadm token create --print-join-command",
        JOIN,
    ),
    Hint(
        "ca-hash",
        r"none of the public keys .* are pinned",
        "the CA hash that join was given is not this cluster's: another cluster answers at that "
        "address, or the cluster was built anew since",
        "take the hash from this control plane; if it was rebuilt, join with the new one",
        JOIN,
    ),
    Hint(
        "cluster-info",
        r"Failed to request cluster-info",
        "join does not get an answer from the API server at that address: it is wrong, not "
        "initialised, or a firewall is between",
        "try it from the worker: curl -k https://<control plane>:6443/healthz",
        JOIN,
    ),
    Hint(
        "crisocket",
        r"error uploading crisocket: timed out",
        "the kubelet of the new node crash-loops, so kubeadm could not finish; a Node object may "
        "be there all the same",
        "journalctl -u kubelet on the worker, then reset it and join again",
        JOIN,
    ),
    Hint(
        "kubelet-healthz",
        r"localhost:10248/healthz|The kubelet is not running|kubelet isn't running or healthy",
        "kubeadm waits for a kubelet that does not start",
        "systemctl status kubelet and journalctl -u kubelet on that host; often the container "
        "runtime is down, or swap is on",
        INIT,
    ),
    Hint(
        "reset-aborted",
        r"aborted reset operation",
        "`kubeadm reset` asked whether to go on and got no yes",
        "run it through the reset stage, which shows its plan first and then passes -f",
        RESET,
    ),
    Hint(
        "reset-containers",
        r"\[reset\] Failed to remove containers",
        "reset could not remove containers because the runtime was down; it ends well all the same",
        "start containerd, and run the reset stage again",
        RESET,
    ),
    # kubectl
    Hint(
        "no-kubeconfig",
        r"connection to the server localhost:8080 was refused|Config not found: .*\.conf",
        "kubectl has no kubeconfig and tries localhost: either `kubeadm init` has not run here "
        "yet, or KUBECONFIG is not set",
        "export KUBECONFIG=/etc/kubernetes/admin.conf on the control plane; if that file is not "
        "there, run the init stage first",
        INIT,
    ),
    Hint(
        "manifest-address",
        r"connection to the server [^\s:]+ was refused|unable to read URL|no such host",
        "a name or an address cannot be reached from where the command ran; for `kubectl apply -f "
        "<address>` that is the manifest's own address",
        "check the address, the proxy and DNS there; or fetch the manifest and give its file as "
        "plugin_manifest",
        NETWORK,
    ),
    Hint(
        "api-refused",
        r"connection to the server (?!localhost:8080)\S+:\d+ was refused"
        r"|:6443: connect: connection refused",
        "the API server does not listen at the moment: it is starting, was killed, or was reset",
        "wait some seconds and try again; then crictl ps -a and journalctl -u kubelet on the "
        "control plane",
        INIT,
    ),
    Hint(
        "api-group-gone",
        r"no matches for kind",
        "the manifest uses an API group that this Kubernetes version does not serve, and the rest "
        "of it may have been applied: nodes can turn Ready while no pod gets an address",
        "take the plugin's manifest for this Kubernetes version, then apply it again",
        NETWORK,
    ),
    Hint(
        "manifest-yaml",
        r"error converting YAML to JSON|error parsing \S+:",
        "the manifest is not YAML",
        "look at the file: a login page or a 404 page saved in its place is usual",
        NETWORK,
    ),
    Hint(
        "manifest-empty",
        r"no objects passed to apply",
        "the manifest has no object in it",
        "look at the file; a download that failed leaves an empty one",
        NETWORK,
    ),
    Hint(
        "manifest-missing",
        r'the path "[^"]*" does not exist',
        "the manifest's file is not there",
        "check plugin_manifest in the parameters; relative paths start from the parameter file",
        NETWORK,
    ),
    Hint(
        "annotation-limit",
        r"metadata\.annotations: Too long",
        "the object is larger than what `kubectl apply` may note in an annotation",
        "apply it with --server-side",
        NETWORK,
    ),
    # the node and its network
    Hint(
        "no-cni",
        r"NetworkPluginNotReady|cni plugin not initialized|cni config uninitialized"
        r"|no CNI configuration file in|no network config found in /etc/cni/net\.d",
        "no CNI configuration is on the node yet: the network plugin was not applied, or its pod "
        "on this node has not started",
        "look at the plugin's pod of this node: scheduled, image pulled, running?",
        READY,
    ),
    Hint(
        "subnet-env",
        r"/run/flannel/subnet\.env: no such file|loadFlannelSubnetEnv failed",
        "flannel's configuration is there but its agent has not written the node's subnet: it is "
        "not running, or crashes",
        "kubectl -n kube-flannel logs of this node's pod; the Node needs a podCIDR",
        NETWORK,
    ),
    Hint(
        "pod-cidr",
        r"pod cidr not assigned|lack of PodCIDR",
        "the Node has no podCIDR: the cluster was initialised without a pod CIDR",
        "build again with one: kubeadm init --pod-network-cidr",
        INIT,
    ),
    Hint(
        "calico-nodename",
        r"/var/lib/calico/nodename: no such file|stat /var/lib/calico/nodename",
        "calico's configuration is there but calico-node has not started on this host",
        "kubectl -n kube-system logs of this node's calico-node; or calico's files were left from "
        "an earlier cluster: run the reset stage",
        NETWORK,
    ),
    Hint(
        "old-bridge",
        r"already has an IP address different from",
        "a bridge of an earlier cluster is on the host, with another subnet",
        "ip link delete cni0 (or the named device) on that host; the reset stage does it",
        RESET,
    ),
    Hint(
        "kubelet-unauthorised",
        r"Unable to register node .*Unauthorized|(kubelet|node).*\bUnauthorized\b",
        "the API server does not accept the kubelet's certificate: its Node was deleted, or it "
        "belongs to an earlier cluster",
        "reset this host and join it again",
        RESET,
    ),
    Hint(
        "x509",
        r"x509: certificate signed by unknown authority",
        "the API server's certificate comes from another CA: this host (or kubeconfig) belongs to "
        "a cluster that was rebuilt or is gone",
        "reset the host and join it again; for kubectl, fetch the new admin.conf",
        RESET,
    ),
    Hint(
        "x509-time",
        r"x509: certificate has expired or is not yet valid",
        "the clocks of the hosts differ, or the certificate is old",
        "switch on time synchronisation; kubeadm certs check-expiration shows the dates",
        PREFLIGHT,
    ),
    Hint(
        "image-pull",
        r"ErrImagePull|ImagePullBackOff|\[ERROR ImagePull\]|failed to pull (and unpack )?image",
        "an image could not be pulled: the registry is not reachable from the host, or the name or "
        "tag is wrong",
        "crictl pull <image> on that host shows why; check proxy and DNS there",
        READY,
    ),
    Hint(
        "crash-loop",
        r"CrashLoopBackOff|back-off \S+ restarting failed container",
        "a container ends again and again",
        "kubectl logs --previous of that pod",
        READY,
    ),
    Hint(
        "node-gone",
        r"Kubelet stopped posting node status|NodeStatusUnknown",
        "the node has stopped reporting: the host is down, cut off, or its kubelet is stopped",
        "systemctl is-active kubelet on the host; is it reachable?",
        READY,
    ),
    Hint(
        "not-found",
        r"Error from server \(NotFound\)",
        "the API has no such object",
        "check the name and the namespace; kubectl get shows what there is",
    ),
    # packages
    Hint(
        "apt-lock",
        r"Could not get lock /var/lib/(dpkg|apt)|Unable to acquire the dpkg frontend lock",
        "another apt or dpkg runs on the host (often unattended-upgrades)",
        "wait until it ends, then run the stage again",
        PACKAGES,
    ),
    Hint(
        "apt-version",
        r"Version '[^']*' for '[^']*' was not found",
        "the host's package repositories do not offer that version",
        "apt-cache madison kubelet shows those that they do; the community repositories hold one "
        "minor version each",
        PACKAGES,
    ),
    Hint(
        "apt-package",
        r"Unable to locate package|has no installation candidate",
        "no package repository of the host knows that package",
        "add the Kubernetes package repository of the wanted minor version, then apt-get update",
        PACKAGES,
    ),
    Hint(
        "dpkg-interrupted",
        r"dpkg was interrupted, you must manually run",
        "an earlier installation was cut short",
        "dpkg --configure -a on that host",
        PACKAGES,
    ),
    Hint(
        "disk-full",
        r"No space left on device",
        "a disk is full",
        "df -h on that host",
        PREFLIGHT,
    ),
    Hint(
        "no-route",
        r"no route to host|Network is unreachable",
        "there is no way to that address: the host is down, or the address is wrong",
        "ping it from the same host; check node_address in the parameters",
        PREFLIGHT,
    ),
)
"""The known messages."""

_COMPILED = tuple((re.compile(hint.pattern, re.IGNORECASE), hint) for hint in HINTS)


def explain(text: str) -> list[Hint]:
    """Return what is known of an error text, most specific first; empty when nothing is.

    Args:
        text: What a tool printed: one message or many lines.
    """
    return [hint for pattern, hint in _COMPILED if pattern.search(text)]
