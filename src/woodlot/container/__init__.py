"""Containers: what they are, how they are made, supervised and removed."""
