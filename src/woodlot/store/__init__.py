"""What is on disk: blobs by digest, records in SQLite, and the locks between processes."""
