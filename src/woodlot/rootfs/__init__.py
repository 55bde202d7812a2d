"""Root filesystems: the layers of an image as one EROFS file, and the writable disk of a container."""
