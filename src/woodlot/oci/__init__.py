"""Images as registries know them: names, digests, manifests, and how to fetch them; usable alone."""
