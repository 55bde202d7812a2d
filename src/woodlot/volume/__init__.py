"""Volumes: files that outlive containers, and that several may use."""
