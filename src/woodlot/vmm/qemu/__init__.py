"""Virtual machines run by QEMU."""
