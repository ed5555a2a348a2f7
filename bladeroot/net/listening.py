"""What all that listens on the network has in common."""

from __future__ import annotations

BACKLOG = 4096
"""Connections that may wait to be accepted: the blades of a room that is switched on come in one moment, and
one too many gets no answer. The kernel grants up to net.core.somaxconn, 4096 since Linux 5.4 (listen(2))."""
