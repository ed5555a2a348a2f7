"""How libtorrent is set for a room of equal machines on one fast link, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bladeroot.net.listening import BACKLOG

MAX_PEERS_PER_TORRENT = 40
"""Enough that no islands form among hundreds (the degree must be above ln N), few enough to keep count of."""


def make_settings(
    *,
    addresses: Sequence[str],
    port: int,
    upload_limit: int = 0,
    download_limit: int = 0,
) -> dict[str, Any]:
    """The settings pack. Rates in bytes per second, 0 for no limit."""
    interfaces = ",".join(
        f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in addresses
    )
    return {
        **_ONLY_THE_ROOM,
        **_FAIR_SWARM,
        **_FAST_LINK,
        **_ROOT_MAY_VANISH,
        **_MACHINE,
        "listen_interfaces": interfaces,
        "upload_rate_limit": upload_limit,
        "download_rate_limit": download_limit,
    }


_ONLY_THE_ROOM: dict[str, Any] = {
    # Nothing outside the room is asked for anything.
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # Peers find each other by multicast, also when no root is there. Who joins a swarm says so at once, and
    # whoever hears it connects; the interval is for what was lost, a cable that was out. It is of each swarm,
    # and each time says it three times: 500 blades in 5 swarms are 375 packets a second of 150 bytes.
    "enable_lsd": True,
    "local_service_announce_interval": 20,
    # An interface without a link is not listened on: a root may be up before its switch is.
    "enable_ip_notifier": True,
    "listen_system_port_fallback": False,
    "max_retry_port_bind": 0,
    "user_agent": "bladeroot",
    "peer_fingerprint": "-BR0001-",
    # uTP gives way to other traffic: 6-11 MB/s where TCP makes 25. MSE would cost CPU and hide nothing:
    # what is fetched is signed, not secret.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "mixed_mode_algorithm": 0,
}

_FAIR_SWARM: dict[str, Any] = {
    # 32 blades behind shaped links, time ÷ (image ÷ link): 4 slots 1.30, 8 and 12 slots 1.17. With all slots
    # open every peer gets every piece late: 16 slots 1.6. Slots are given once in an interval, so that the
    # first pieces wait for it too: 1 s 1.17, 2 s 1.27.
    "ignore_limits_on_local_network": False,
    "unchoke_slots_limit": 8,
    "unchoke_interval": 1,
    "optimistic_unchoke_interval": 10,
    # anti_leech: who has all gives to those that have little or nearly all, so its slots go round. The
    # default (round robin) keeps a slot for a minute at least, which is longer than an image takes.
    "seed_choking_algorithm": 2,
    "suggest_mode": 0,
    # A root gives by its first seeder, beside the port on which it fetches.
    "allow_multiple_connections_per_ip": True,
}

_FAST_LINK: dict[str, Any] = {
    # connect_peer() waits for a tick: 0.1 s to the first connection, not 0.5.
    "tick_interval": 100,
    "connection_speed": 500,
    "torrent_connect_boost": 100,
    "smooth_connects": False,
    "connections_limit": 400,
    "listen_queue_size": BACKLOG,
    "send_buffer_watermark": 4 << 20,
    "send_buffer_low_watermark": 1 << 20,
    "send_not_sent_low_watermark": 512 << 10,
    # Long queues are blocks promised to one slow peer, and end in redundant copies.
    "max_out_request_queue": 32,
    "request_queue_time": 1,
    "max_queued_disk_bytes": 64 << 20,
    "rate_limit_ip_overhead": False,
}

_ROOT_MAY_VANISH: dict[str, Any] = {
    # A machine without power does not close its connections: notice, and ask others.
    "peer_connect_timeout": 5,
    "handshake_timeout": 10,
    "piece_timeout": 10,
    "request_timeout": 20,
    "peer_timeout": 30,
    # ... and try it again when it comes back.
    "min_reconnect_time": 2,
    "max_failcount": 30,
    "stop_tracker_timeout": 1,
}

_MACHINE: dict[str, Any] = {
    "aio_threads": 2,
    "hashing_threads": 1,
    "file_pool_size": 64,
    "alert_queue_size": 100_000,
    # error, storage, status, piece_progress: see libtorrent's alert_category.
    "alert_mask": 0x1 | 0x8 | 0x40 | 0x400000,
}
