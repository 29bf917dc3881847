"""The commands by which somebody decides what the service does not: conflicts, resolve, accept."""
