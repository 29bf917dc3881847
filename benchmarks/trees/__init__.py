"""mdvp-sync with whole trees, beside what else would mirror one, and a loop that walks it."""
