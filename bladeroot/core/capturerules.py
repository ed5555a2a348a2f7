"""What a capture leaves out: the rules' text, read into rsync filters.

One rule a line, patterns as rsync's (a leading `/` anchors at the source's top, a trailing `/` fits
directories only, `*` stops at `/`, `**` does not). The first rule that fits decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import cache

from attrs import frozen

from bladeroot.errors import ConfigError

FILE_NAME = "capture.rules"


class RuleAction(StrEnum):
    """What to do with what fits; the value is the line's prefix in the file."""

    LEAVE_OUT = "-"
    KEEP = "+"
    EMPTY = "="


@frozen
class CaptureRule:
    """One line. The pattern of EMPTY is one absolute path; it becomes a file of no bytes."""

    action: RuleAction
    pattern: str


@frozen
class CaptureRules:
    """The rules in their order."""

    rules: tuple[CaptureRule, ...]

    @property
    def emptied(self) -> tuple[str, ...]:
        """Absolute paths that are kept without their content."""
        return tuple(rule.pattern for rule in self.rules if rule.action is RuleAction.EMPTY)


def parse_capture_rules(text: str, source: str = FILE_NAME) -> CaptureRules:
    """Read rules. Raises ConfigError with `source`, the line's number and what was expected."""
    rules = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line and not line.startswith("#"):
            rules.append(_parse_line(line, f"{source}:{number}"))
    return CaptureRules(tuple(rules))


def _parse_line(line: str, where: str) -> CaptureRule:
    match = re.fullmatch(r"(?:([-+=])\s+)?(\S.*)", line)
    if match is None:
        raise ConfigError(f"{where}: a prefix without a pattern: {line!r}", "for example: - /var/tmp/*")
    action = RuleAction(match[1] or "-")
    pattern = match[2]
    if "\0" in pattern:
        raise ConfigError(f"{where}: a pattern cannot hold a NUL")
    if re.match(r"[-+=!:.,HSPR]\s", pattern) or pattern == "!":
        hint = "a line is a pattern, or a pattern after one of - + ="
        raise ConfigError(f"{where}: not a rule: {line!r}", hint)
    if ".." in pattern.split("/"):
        raise ConfigError(f"{where}: a pattern cannot climb with '..': {pattern!r}", "write the path itself")
    if re.search(r"\[[^\]]*$", pattern):
        raise ConfigError(f"{where}: '[' without ']': {pattern!r}", r"a '[' that is meant is written \[")
    if action is RuleAction.EMPTY and (not re.fullmatch(r"(/[^/*?\[\]]+)+", pattern) or "\\" in pattern):
        hint = "after = stands one file's absolute path, without wildcards: = /etc/machine-id"
        raise ConfigError(f"{where}: not one file: {pattern!r}", hint)
    if action is RuleAction.LEAVE_OUT and re.fullmatch(r"/?\*{0,3}/?\*{0,3}", pattern):
        raise ConfigError(f"{where}: {pattern!r} would leave out everything", "name what to leave out")
    return CaptureRule(action, pattern)


def render_rsync_filters(rules: CaptureRules, before: Sequence[str] = ()) -> str:
    """The rules as an rsync merge file; `before` are patterns to leave out that decide before all rules.

    What is left out is *hidden* from the sender and not protected at the receiver, so that a rule that is
    added later removes what an earlier capture took.
    """
    lines = [f"H {pattern}" for pattern in before]
    for rule in rules.rules:
        if rule.action is RuleAction.LEAVE_OUT:
            lines.append(f"H {rule.pattern}")
        elif rule.action is RuleAction.KEEP:
            lines.append(f"S {rule.pattern}")
        else:
            lines += [f"H {rule.pattern}", f"P {rule.pattern}"]
    return "".join(f"{line}\n" for line in lines)


def make_pattern(path: str, *, only_content: bool = False) -> str:
    """The pattern that fits exactly this path, or only what is in that directory."""
    # rsync reads a backslash as an escape only in patterns that hold a wildcard.
    if only_content or re.search(r"[*?\[]", path):
        path = re.sub(r"([\\*?\[])", r"\\\1", path)
    return f"{path}/*" if only_content else path


def is_left_out(rules: CaptureRules, directory: str) -> bool:
    """Whether the rules leave out a directory (an absolute path in the source), or one that it is in."""
    parts = directory.strip("/").split("/")
    return any(_decide(rules, "/" + "/".join(parts[: end + 1])) for end in range(len(parts)))


def _decide(rules: CaptureRules, directory: str) -> bool:
    for rule in rules.rules:
        if _compile(rule.pattern).fullmatch(directory):
            return rule.action is RuleAction.LEAVE_OUT
    return False


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """A pattern (rsync(1), PATTERN MATCHING RULES) as an expression for a directory's absolute path."""
    body = pattern.removesuffix("/") if not pattern.endswith("***") else pattern.removesuffix("/***")
    inside = "(/.*)?" if pattern.endswith("/***") else ""
    anchor = "" if body.startswith("/") else ".*/"
    found = []
    for piece in re.findall(r"\\.|\*\*+|\*|\?|\[[^\]]+\]|.", body, re.DOTALL):
        if piece.startswith("**"):
            found.append(".*")
        elif piece in ("*", "?"):
            found.append("[^/]" + ("*" if piece == "*" else ""))
        elif piece.startswith("[") and len(piece) > 1:
            found.append(piece.replace("[!", "[^"))
        else:
            found.append(re.escape(piece[-1] if len(piece) == 2 else piece))
    return re.compile(f"{anchor}{''.join(found)}{inside}", re.DOTALL)


DEFAULT_CAPTURE_RULES = """\
# What `bladeroot snapshot capture` does not copy from a golden blade.
#
#   /path/pattern       leave out (the same as: - /path/pattern)
#   + /path/pattern     copy, although a line below leaves it out
#   = /path/of/a/file   copy the file, without its content
#
# Patterns are rsync's: a leading / is the top of the source, a trailing / fits directories only,
# * stops at a /, ** does not; "dir/*" leaves the directory, empty. The first line that fits decides.

# Not files of the system, but views of the running kernel, and what is gone after a reboot
/proc/*
/sys/*
/dev/*
/run/*
/tmp/*
/var/tmp/*
/mnt/*
/media/*
lost+found/
.fuse_hidden*
.nfs????????????????????????

# Who this machine is: every blade gets its own
= /etc/machine-id
/var/lib/dbus/machine-id
/etc/hostname
/etc/ssh/ssh_host_*
/etc/dropbear/*_host_key
/var/lib/systemd/random-seed
/var/lib/systemd/credential.secret
/var/lib/urandom/random-seed
/var/lib/random-seed
/boot/loader/random-seed
/etc/iscsi/initiatorname.iscsi
/etc/nvme/hostid
/etc/nvme/hostnqn
/var/lib/cloud/*
/var/lib/tailscale/*

# The disks and network cards of this machine
/etc/fstab
/etc/crypttab
/etc/adjtime
/etc/mdadm/mdadm.conf
/etc/lvm/archive/*
/etc/lvm/backup/*
/etc/lvm/cache/*
/etc/lvm/devices/*
/etc/multipath/bindings
/etc/multipath/wwids
/etc/zfs/zpool.cache
/etc/initramfs-tools/conf.d/resume
/etc/udev/rules.d/70-persistent-net.rules
/etc/udev/rules.d/70-persistent-cd.rules
/var/lib/systemd/rfkill/*
/var/lib/systemd/backlight/*
/boot/grub/grubenv
/boot/grub2/grubenv
/boot/efi/*
/efi/*
/swapfile
/swap.img
/swap/*
/var/swap

# Leases
/var/lib/dhcp/*
/var/lib/dhclient/*
/var/lib/dhcpcd/*
/var/lib/misc/dnsmasq.leases
/var/lib/dnsmasq/*.leases
/var/lib/NetworkManager/*

# Logs and what happened here: the directories stay
+ /var/log/**/
/var/log/**
/var/crash/*
/var/lib/systemd/coredump/*
/var/lib/systemd/timers/*
/var/lib/systemd/timesync/clock
/var/lib/logrotate/status
/var/lib/lastlog/*
/root/.*_history
/home/*/.*_history

# Mail and jobs that wait: a thousand blades would send them a thousand times
/var/spool/postfix/active/*
/var/spool/postfix/deferred/*
/var/spool/postfix/incoming/*
/var/spool/postfix/maildrop/*
/var/spool/exim4/input/*
/var/spool/exim4/msglog/*
/var/spool/cups/*
/var/spool/cron/atjobs/*

# Caches: made again when needed
/var/cache/apt/*.bin
/var/cache/apt/archives/*.deb
/var/cache/apt/archives/partial/*
/var/lib/apt/lists/*
/var/cache/dnf/*
/var/cache/yum/*
/var/cache/libdnf5/*
/var/cache/zypp/*
/var/cache/pacman/pkg/*
/var/cache/man/*
/var/cache/ldconfig/*
/var/lib/mlocate/*
/var/lib/plocate/*
/root/.cache/*
/home/*/.cache/*
/.snapshots/*

# bladeroot's own: the depot, and the operator's secret key
/var/lib/bladeroot/*
/root/.config/bladeroot/*
/home/*/.config/bladeroot/*

# You may want these too:
# /home/*/*
# /var/lib/docker/*
# /var/lib/containers/*
# /srv/*
# /etc/ssl/private/*
# /root/.ssh/id_*
"""
