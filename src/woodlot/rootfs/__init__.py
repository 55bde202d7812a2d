"""Root filesystems: the layers of an image as one EROFS file, and the writable disk of a container."""

# Of the EROFS files: raised when the same layers give other bytes than before; images of another version are built anew.
# Here, because the name of a file is wanted at every start, and how it is built is not.
FORMAT_VERSION = 1
