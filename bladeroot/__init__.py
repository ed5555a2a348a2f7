"""
bladeroot: a peer-to-peer, self-replicating blade cluster.

Whatever the command does, this package does: typed, documented, and usable without the command line.
"""

__version__ = "0.1.0"
