"""The network: discovery, the swarm, and the control service."""
