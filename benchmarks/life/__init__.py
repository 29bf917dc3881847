"""A volume's whole life with very many files: removed, restored, copied, shown, listed."""
