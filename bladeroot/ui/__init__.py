"""What a person sees: the command line and the live table."""
