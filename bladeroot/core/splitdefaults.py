"""The `split.rules` that a new cluster folder gets: for Debian's family and for RPM distributions."""

DEFAULT_SPLIT_RULES = """\
# Where each path of a snapshot goes when it is published.
#
#   runtime    what a blade needs to run. It boots with this alone. (Default for every path.)
#   extras     what it fetches when it is up. Only then is it complete, and able to be root.
#   leave-out  what no blade gets.
#
# The last line that matches a path decides. `*` and `?` match `/` too, as in dpkg's path-exclude, and
# `[...]` is one of those characters. A pattern that ends in `/` matches directories alone. A directory
# comes along wherever something in it is needed; names of one hard-linked file stay together.
# `bladeroot publish` says how big each part became.

# --- Extras: documentation -----------------------------------------------------------------------
extras     /usr/share/doc/*
extras     /usr/share/doc-base/*
extras     /usr/share/man/*
extras     /usr/share/info/*
extras     /usr/share/gtk-doc/*
extras     /usr/share/help/*
extras     /usr/share/lintian/*
extras     /usr/local/share/man/*
# If what you run shows licences or examples from there, keep them in runtime:
# runtime  /usr/share/doc/*/copyright

# --- Extras: translations, and what locales are made from ----------------------------------------
# What the C library needs at run time is in /usr/lib/locale (C.utf8, locale-archive): no line here.
extras     /usr/share/locale/*
runtime    /usr/share/locale/locale.alias
extras     /usr/share/i18n/*

# --- Extras: what only compiling needs -----------------------------------------------------------
extras     /usr/include/*
extras     /usr/lib/gcc/*/include/*
extras     /usr/lib/*.a
extras     /usr/lib64/*.a
extras     /usr/src/*
extras     /usr/lib/debug/*
extras     /usr/share/pkgconfig/*
extras     /usr/lib/pkgconfig/*
extras     /usr/lib64/pkgconfig/*
extras     /usr/lib/*-linux-gnu*/pkgconfig/*
extras     /usr/lib/cmake/*
extras     /usr/lib64/cmake/*
extras     /usr/lib/*-linux-gnu*/cmake/*
extras     /usr/share/aclocal/*

# --- Extras: the package databases ---------------------------------------------------------------
# Never leave these out: a blade that is root publishes from its own disk, with its package manager.
# /var/lib/dpkg/status, diversions and alternatives are small and stay in runtime.
extras     /var/lib/dpkg/info/*
extras     /var/cache/debconf/*
extras     /var/lib/rpm/*
extras     /usr/lib/sysimage/rpm/*
extras     /usr/share/rpm/*
extras     /var/lib/dnf/*
extras     /var/lib/yum/*
extras     /var/lib/zypp/*

# --- Left out: what the package managers fetch again ---------------------------------------------
leave-out  /var/cache/apt/archives/*.deb
leave-out  /var/cache/apt/archives/partial/*
leave-out  /var/cache/apt/*.bin
leave-out  /var/lib/apt/lists/*
runtime    /var/lib/apt/lists/*/
leave-out  /var/lib/dpkg/*-old
leave-out  /var/cache/debconf/*-old
leave-out  /var/cache/dnf/*
leave-out  /var/cache/yum/*
leave-out  /var/cache/zypp/*
leave-out  /var/cache/PackageKit/*

# --- Left out: caches and logs; their directories stay, with the owners that daemons want ----------
leave-out  /var/cache/man/*
leave-out  /var/cache/ldconfig/*
leave-out  /var/log/*
runtime    /var/log/*/
leave-out  /var/log/journal/*
leave-out  /var/crash/*
leave-out  /var/lib/systemd/coredump/*

# --- Left out: pseudo filesystems and what a boot clears; the mount points themselves stay ---------
leave-out  /proc/*
leave-out  /sys/*
leave-out  /run/*
leave-out  /dev/pts/*
leave-out  /dev/shm/*
leave-out  /dev/mqueue/*
leave-out  /tmp/*
leave-out  /var/tmp/*
leave-out  /lost+found
leave-out  /swapfile
leave-out  /swap.img

# --- Left out: what is one machine's own, or secret ------------------------------------------------
# Each blade gets host keys of its own when it is installed; /etc/bladeroot comes with its overlay.
leave-out  /etc/ssh/ssh_host_*_key
leave-out  /etc/ssh/ssh_host_*_key.pub
leave-out  /var/lib/systemd/random-seed
leave-out  /var/lib/systemd/credential.secret
leave-out  /var/lib/NetworkManager/*
runtime    /var/lib/NetworkManager/*/
leave-out  /var/lib/dhcp/*.leases
leave-out  /var/lib/dhclient/*.lease*
leave-out  /etc/bladeroot/*
leave-out  /root/.config/bladeroot/*
leave-out  /home/*/.config/bladeroot/*
leave-out  /var/lib/bladeroot/*
"""
