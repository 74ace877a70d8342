"""The emulated Kubernetes API server of a lab: one process, `python -m kitlib.lab.api`.

It exists so that kubectl, the official client and the lab's kubelets can talk to something that
behaves as a kubeadm cluster's API does, without container images or privileges. etcd, the
controller manager and the scheduler are emulated inside the same process.
"""
