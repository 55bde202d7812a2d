"""Saved machines that new ones start from, in place of booting."""
