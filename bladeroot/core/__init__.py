"""Pure logic: no I/O, no clock, no randomness; time and chance are passed in."""
