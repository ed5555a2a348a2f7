"""The agent: the process in the initramfs. It finds out which machine this is, installs it or leaves it."""
