"""mdvp-sync beside what else would mirror a directory, and beside what is possible at all."""
