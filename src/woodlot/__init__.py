"""Every Linux container in a virtual machine of its own, without a daemon."""
