"""Tars of the host's files, and tars of a guest's unpacked among them."""
