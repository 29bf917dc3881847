"""mdvp beside the engine's own driver and rclone's."""
