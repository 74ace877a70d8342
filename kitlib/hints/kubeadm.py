"""What `kubeadm init`, `join` and `reset` say when they fail."""

from __future__ import annotations

from kitlib.hints.hint import INIT, JOIN, PACKAGES, PREFLIGHT, RESET, Hint

__all__ = ["KUBEADM"]

KUBEADM: tuple[Hint, ...] = (
    # preflight of init and join
    Hint(
        "already-in-a-cluster",
        r"FileAvailable--etc-kubernetes-(bootstrap-)?kubelet\.conf",
        "the host is a member of a cluster already (or of one that is gone), so kubeadm will not "
        "join it to another",
        "if it is in the wanted cluster there is nothing to do; else run the reset stage for this "
        "host first",
        RESET,
    ),
    Hint(
        "init-twice",
        r"(File|Dir)Available--etc-kubernetes-manifests|DirAvailable--var-lib-etcd",
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
        "runtime-no-cri",
        r"unknown service runtime\.v1(alpha2)?\.RuntimeService"
        r"|CRI v1 runtime API is not implemented",
        "the container runtime runs but does not speak the kubelet's protocol (CRI): in its "
        "configuration the cri plugin is switched off, as in the containerd.io package, or it is "
        "older than this Kubernetes version wants",
        'take "cri" out of disabled_plugins in /etc/containerd/config.toml (or write that file '
        "anew: containerd config default), systemctl restart containerd; Kubernetes 1.26 and "
        "newer want containerd 1.6 or newer",
        PREFLIGHT,
    ),
    Hint(
        "runtime-down",
        r"container runtime is not running(?!.*runtime API)(?!.*unknown service)"
        r"|docker is required for container runtime"
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
        "tool-missing",
        r"\[ERROR FileExisting-\S+\]",
        "a program that kubeadm or the kubelet calls is not installed on the host",
        "the message names it; conntrack, iptables, iproute2, ethtool and socat are packages of "
        "the distribution, crictl comes with cri-tools: run the packages stage",
        PACKAGES,
    ),
    Hint(
        "cgroups",
        r"\[ERROR SystemVerification\]",
        "the kernel or its control groups lack what the kubelet needs",
        "the message names it; a missing memory group is switched on by cgroup_enable=memory on "
        "the kernel's command line",
        PREFLIGHT,
    ),
    Hint(
        "proxy",
        r"\[(ERROR|WARNING) HTTPProxy(CIDR)?\]",
        "connections to the cluster's own addresses would go through the HTTP proxy",
        "put the hosts, the pod CIDR and the service CIDR into no_proxy",
        PREFLIGHT,
    ),
    Hint(
        "kubelet-version",
        r"\[ERROR KubeletVersion\]",
        "the kubelet on the host is newer than the control plane, which is not supported",
        "run the packages stage, so that all hosts have the wanted version",
        PACKAGES,
    ),
    # discovery of the cluster by join
    Hint(
        "token",
        r"could not find a JWS signature in the cluster-info ConfigMap for token ID"
        r"|token id .* is invalid for this cluster or it has expired",
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
        r"Failed to request (the )?cluster-info",
        "join does not get an answer from the API server at that address: it is wrong, not "
        "initialised, or a firewall is between",
        "try it from the worker: curl -k https://<control plane>:6443/healthz",
        JOIN,
    ),
    Hint(
        "certificate-key",
        r'Secret "kubeadm-certs" was not found|error decoding secret data with provided key',
        "the control plane's keys are not (or no longer) in the cluster for the joining one to "
        "fetch, they live two hours; or the certificate key is not the one they were sealed with",
        "kubeadm init phase upload-certs --upload-certs on a control plane, and join with the key "
        "that it prints (the join stage does)",
        JOIN,
    ),
    Hint(
        "no-endpoint",
        r"doesn't have a stable controlPlaneEndpoint address",
        "the cluster was initialised without an endpoint that its control planes share, so a "
        "second control plane cannot join",
        "build it with one: an endpoint in the parameters, kubeadm init --control-plane-endpoint",
        INIT,
    ),
    Hint(
        "node-name-taken",
        r'a Node with name "[^"]*" and status "Ready" already exists',
        "another host of the cluster has the same name, or this one was reset without being "
        "deleted from the cluster",
        "give the hosts different names; or kubectl delete node <name>, then join again",
        JOIN,
    ),
    Hint(
        "etcd-unhealthy",
        r"etcd cluster is not healthy|etcdserver: unhealthy cluster",
        "a member of etcd does not answer, usually one whose host was reset or is down",
        "etcdctl member list in an etcd pod shows it; etcdctl member remove takes a dead one out",
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
        r"(localhost|127\.0\.0\.1):10248/healthz|The kubelet is not (running|healthy)"
        r"|kubelet isn't running or healthy",
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
)
"""Messages of kubeadm, the specific ones first."""
