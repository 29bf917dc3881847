"""What is decided, with plain values: no system calls, no connection, no clock."""
