"""The command that compares all content, and mends what differs."""
