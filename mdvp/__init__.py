"""mdvp: a Docker volume plugin that lets one container at a time have a volume."""

__version__ = "0.1.0"
