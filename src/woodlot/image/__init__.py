"""Local images: pulling, listing, deleting."""
