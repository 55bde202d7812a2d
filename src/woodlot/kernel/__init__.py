"""Guest kernels: where they come from, which one is used, and the initial RAM filesystem they boot with."""
