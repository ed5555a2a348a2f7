"""What every contender brings to every blade: the same tree, as a depot, as one tarball, and as it is.

The tree is whole packages of a real Debian, the same ones each time; the tarball is the generation's frames
laid end to end, so that all who send something compressed send the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard
from attrs import frozen

from bladeroot.core.cluster import MIB, Blade
from bladeroot.core.framing import CutSizes
from bladeroot.core.manifest import ArtefactKind, Manifest, make_blade_entries, sign_manifest
from bladeroot.errors import ToolError
from bladeroot.host.archive import pack_members, read_package_order, scan_tree
from bladeroot.host.depot import Depot
from bladeroot.host.run import PIPE, Argument, start_process
from bladeroot.ops.folder import ClusterFolder, init_cluster

LEVEL = 6
"""zstd's, as clusters have it unless they say otherwise."""
FEWEST_PIECES = 500
_CUTS_PER_PIECE = 2
"""Frames come out at twice the least cut, on average."""
_LARGEST_SHARE = 8
"""No package has more than such a share of the image: it is to be many packages, not one."""
_DPKG = Path("var/lib/dpkg/info")


@frozen(kw_only=True)
class Payload:
    """The image in all its shapes."""

    tree: Path
    depot: Path
    cluster: Path
    tarball: Path
    pieces: int
    size_bytes: int
    """Of the tarball, and of what a blade fetches from bladeroot."""
    raw_bytes: int
    """Of all files' contents."""
    files: int
    """Names in the tree."""


def make_payload(debian: Path, work: Path, size_bytes: int, blades: int) -> Payload:
    """About so large, compressed, for so many blades; everything is below `work`."""
    tree = work / "tree"
    copy_packages(debian, tree, choose_packages(debian, size_bytes))
    members = scan_tree(tree)
    raw_bytes = sum(member.data_size for member in members)
    least = raw_bytes // (_CUTS_PER_PIECE * FEWEST_PIECES * 5 // 4)
    folder, key_path = work / "cluster", work / "key"
    made = init_cluster(
        folder,
        name="bench",
        blades=[Blade(name=blade_name(number), role="blade") for number in range(blades)],
        secret_key_path=key_path,
    )
    depot = Depot.create(work / "depot")
    with depot.lock(), depot.new_artefact() as writer:
        packed = pack_members(
            tree,
            members,
            writer.write,
            level=LEVEL,
            package_of=read_package_order(tree),
            cuts=CutSizes(least, 3 * least),
        )
        artefact = writer.finish(ArtefactKind.RUNTIME, packed.files, packed.raw_size_bytes)
    cluster = made.folder.cluster
    manifest = Manifest(
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        serial=1,
        previous=None,
        arch=cluster.arch,
        created=0,
        kernel_command_line=cluster.kernel_command_line,
        artefacts=(artefact,),
        blades=make_blade_entries(cluster),
        network=cluster.network,
    )
    key = ClusterFolder.open(folder).secret_key(lambda _prompt: "", key_path)
    depot.add_generation(sign_manifest(manifest, key), manifest)
    tarball = work / "serve" / "image.tar.zst"
    tarball.parent.mkdir()
    with tarball.open("wb") as file:
        for path in depot.artefact_files(artefact.info_hash):
            file.write(path.read_bytes())
    return Payload(
        tree=tree,
        depot=depot.path,
        cluster=folder,
        tarball=tarball,
        pieces=artefact.files,
        size_bytes=tarball.stat().st_size,
        raw_bytes=raw_bytes,
        files=len(members),
    )


def blade_name(number: int) -> str:
    """What the blades of the room are called; the first has number 0."""
    return f"blade{number + 1:03d}"


def choose_packages(debian: Path, size_bytes: int) -> list[str]:
    """Packages that come to about so much when compressed: always the same for the same Debian."""
    names = [path.stem for path in (debian / _DPKG).glob("*.list")]
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen, total = [], 0
    for name in names:
        size = _estimate_compressed(debian, name, size_bytes // _LARGEST_SHARE)
        if size <= size_bytes // _LARGEST_SHARE and total + size <= size_bytes + MIB // 2:
            chosen.append(name)
            total += size
    return chosen


def copy_packages(debian: Path, tree: Path, packages: Iterable[str]) -> None:
    """The files of these packages, with all that belongs to a file."""
    tree.mkdir(parents=True)
    paths = {b"."}
    for name in packages:
        for path in _list_paths(debian, name):
            while path:
                paths.add(path)
                path = os.path.dirname(path)
        paths.add(os.fsencode(_DPKG / f"{name}.list"))
    for parent in _DPKG.parents:
        paths.add(os.fsencode(parent))
    options = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--null"]
    listing = tree.with_name("listing")
    listing.write_bytes(b"\0".join(sorted(paths | {os.fsencode(_DPKG)})))
    reading: list[Argument] = ["tar", "-C", debian, *options, "--no-recursion", "-T", listing, "-c"]
    with start_process(reading, stdout=PIPE) as reader:
        with start_process(["tar", "-C", tree, *options[:-1], "-xp"], stdin=reader.stdout) as writer:
            codes = [writer.wait()]
        codes.append(reader.wait())
    if any(codes):
        raise ToolError("the payload could not be copied")


def _list_paths(debian: Path, package: str) -> Iterator[bytes]:
    """What a package brought, where it is in a Debian whose /bin is a link to /usr/bin."""
    for line in (debian / _DPKG / f"{package}.list").read_bytes().splitlines():
        path = line.lstrip(b"/")
        parent, base = os.path.split(path)
        real = os.path.realpath(os.path.join(os.fsencode(debian), parent))
        inside = os.path.relpath(os.path.join(real, base), os.fsencode(debian))
        if path not in (b"", b".") and os.path.lexists(os.path.join(os.fsencode(debian), inside)):
            yield inside


def _estimate_compressed(debian: Path, package: str, most: int) -> int:
    """What the package's files come to; a number above `most` for one that is larger."""
    compressor = zstandard.ZstdCompressor(level=1)
    total = 0
    for path in _list_paths(debian, package):
        full = os.path.join(os.fsencode(debian), path)
        if os.path.isfile(full) and not os.path.islink(full):
            if os.path.getsize(full) > 8 * most:
                return most + 1
            with open(full, "rb") as file:
                total += len(compressor.compress(file.read()))
        if total > most:
            return total
    return total
