"""The directory: what happens in it, what is there, and which names one file has."""
