"""Networks of containers, as the host sees them."""
