"""Throw-away hosts to practise and test on: real SSH and Linux networking, emulated Kubernetes.

To the rest of the kit a lab host is an SSH address in a params file; only `kitlib.cli` and the
tests know this package. It imports the words of layer 0 and nothing above.
"""
