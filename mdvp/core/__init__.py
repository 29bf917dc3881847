"""What a volume is and who has it: plain values and the rules about them, without I/O."""
