"""Host files for guests: virtiofsd, what it may reach, and as whom."""
