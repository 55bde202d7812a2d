"""The command ``container``: a thin skin over the library."""
