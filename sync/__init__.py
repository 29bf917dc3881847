"""mdvp-sync: keeps Redis equal to a directory; a file is a key, its content the value."""
