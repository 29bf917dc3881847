"""What is seen from outside: the log, the status file, the lines on a terminal."""
