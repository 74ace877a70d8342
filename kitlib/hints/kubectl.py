"""What kubectl says when it fails."""

from __future__ import annotations

from kitlib.hints.hint import INIT, NETWORK, Hint

__all__ = ["KUBECTL"]

KUBECTL: tuple[Hint, ...] = (
    Hint(
        "no-kubeconfig",
        r"connection to the server localhost:8080 was refused|localhost:8080/\S*\": dial tcp"
        r"|Config not found: .*\.conf|stat /etc/kubernetes/admin\.conf: no such file",
        "kubectl has no kubeconfig and tries localhost: either `kubeadm init` has not run here "
        "yet, or KUBECONFIG is not set",
        "export KUBECONFIG=/etc/kubernetes/admin.conf on the control plane; if that file is not "
        "there, run the init stage first",
        INIT,
    ),
    Hint(
        "manifest-address",
        r"connection to the server [^\s:]+ was refused|unable to read URL",
        "the address that `kubectl apply -f` was given cannot be read from where it ran",
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
        "crd-missing",
        r"ensure CRDs are installed first",
        "the manifest has objects of a kind that its own CustomResourceDefinitions bring, and "
        "they were not served yet",
        "apply it once more; or the definitions first",
        NETWORK,
    ),
    Hint(
        "kubectl-unauthorised",
        r"You must be logged in to the server",
        "the API server does not know the certificate in this kubeconfig: it is of an earlier "
        "cluster, or expired",
        "export KUBECONFIG=/etc/kubernetes/admin.conf on the control plane; a copy in "
        "$HOME/.kube/config stays behind when a cluster is reset",
        INIT,
    ),
    Hint(
        "annotation-limit",
        r"metadata\.annotations: Too long",
        "the object is larger than what `kubectl apply` may note in an annotation",
        "apply it with --server-side",
        NETWORK,
    ),
)
"""Messages of kubectl, the specific ones first."""
