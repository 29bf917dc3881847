"""The Redis server: what it holds, and how that is changed."""
