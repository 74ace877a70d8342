"""The library behind the kit's notebooks: build, watch and measure kubeadm cluster networks."""

__version__ = "0.1.0"
