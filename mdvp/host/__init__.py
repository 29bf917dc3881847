"""What the host shows: its processes, containers and mounts, as `/proc` has them."""
