"""nginx on the root; each blade pipes curl into zstd and tar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.contender import Command, listens, render_script, wait_until
from benchmarks.stage import Spot, Stage
from bladeroot.host.run import DEVNULL, Process, run, start_process

_PORT = 80
# What Debian's nginx.conf has too, for as many connections as there may be blades.
_CONF = """\
daemon off;
user root;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{ listen {port}; root {serve}; }}
}}
"""


class Nginx:
    """A copy for each blade, but extracted while it comes."""

    name = "nginx"
    title = "nginx, curl | tar"
    settings = "sendfile, tcp_nopush"
    sends_each = True
    needs: Sequence[str] = ("nginx", "curl")

    @contextmanager
    def start_root(self, stage: Stage) -> Iterator[Process]:
        """In the foreground."""
        conf = stage.folder / "nginx.conf"
        conf.write_text(_CONF.format(folder=stage.folder, port=_PORT, serve=stage.payload.tarball.parent))
        argv = stage.root.command(["nginx", "-c", conf, "-p", stage.folder, "-e", stage.folder / "nginx.log"])
        with start_process(argv, stdout=DEVNULL, new_group=True, ends_with_parent=True) as process:
            wait_until(lambda: listens(stage.root, _PORT), "nginx", process)
            yield process

    def blade_command(self, stage: Stage, spot: Spot) -> Command:
        """One pipe."""
        url = f"http://{stage.root.address}:{_PORT}/{stage.payload.tarball.name}"
        return render_script(spot, f"{{{{ curl -fsS {url}; say have; }}}} | zstd -dc | {{extract}}\n")

    def versions(self) -> str:
        """Of nginx."""
        return first_number(run(["nginx", "-v"]).stderr)


def first_number(text: str) -> str:
    """The first that looks like a version."""
    match = re.search(r"\d+(\.\d+)+|\d{8}", text)
    return match[0] if match else "?"
