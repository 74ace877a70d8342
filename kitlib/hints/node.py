"""What kubelets, network plugins and the events of pods say."""

from __future__ import annotations

from kitlib.hints.hint import INIT, NETWORK, PREFLIGHT, READY, RESET, Hint

__all__ = ["NODE"]

NODE: tuple[Hint, ...] = (
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
        "calico-unauthorised",
        r"error getting ClusterInformation: connection is unauthorized",
        "calico's kubeconfig on this host (/etc/cni/net.d/calico-kubeconfig) is not valid in this "
        "cluster: it was left from an earlier one, or its token has expired",
        "delete this node's calico-node pod, which writes it anew; if calico is not the wanted "
        "plugin, run the reset stage",
        NETWORK,
    ),
    Hint(
        "calico-bgp",
        r"BIRD is not ready|BGP not established with",
        "calico has no BGP session with another node: TCP port 179 is closed between them, or it "
        "took the address of the wrong interface",
        "nc -vz <other node> 179 from this one; IP_AUTODETECTION_METHOD of calico-node names the "
        "interface",
        NETWORK,
    ),
    Hint(
        "addresses-used-up",
        r"no IP addresses available in range set",
        "every address of the node's pod CIDR is taken, or noted as taken by pods of an earlier "
        "cluster in /var/lib/cni/networks",
        "ls /var/lib/cni/networks on that host; the reset stage empties it",
        RESET,
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
        r"Unable to register node .*Unauthorized"
        r"|^(?!.*(pull|/v2/|ClusterInformation)).*(kubelet|node).*\bUnauthorized\b",
        "the API server does not accept the kubelet's certificate: its Node was deleted, or it "
        "belongs to an earlier cluster",
        "reset this host and join it again",
        RESET,
    ),
    Hint(
        "registry-x509",
        r"(/v2/|pull).*x509: certificate signed by unknown authority",
        "the image registry's certificate is signed by an authority that the host does not know",
        "put the authority's certificate under /etc/containerd/certs.d, or into the host's trust "
        "store, and restart containerd",
        READY,
    ),
    Hint(
        "x509",
        r"^(?!.*(/v2/|pull)).*x509: certificate signed by unknown authority",
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
        "kubelet-unconfigured",
        r"failed to (load|read) kubelet config file",
        "the kubelet has no configuration yet; before `kubeadm init` or `join` that is as it "
        "should be: it starts again and again until they write it",
        "run the init stage, then the join stage for the workers",
        INIT,
    ),
    Hint(
        "cgroup-driver",
        r"kubelet cgroup driver: .* is different from",
        "the kubelet and the container runtime use different cgroup drivers",
        "SystemdCgroup = true in /etc/containerd/config.toml, then systemctl restart containerd",
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
)
"""Messages of the nodes and their network, the specific ones first."""
