#!/bin/sh
# The agent's first process. It gives Python a machine to stand on, and starts it again if it ends.
export PATH=/usr/bin HOME=/root PYTHONHOME=/usr PYTHONPATH=/usr/lib/bladeroot PYTHONDONTWRITEBYTECODE=1
export ENV=/etc/shrc
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs tmpfs /tmp
pause=5
while :; do
    echo 'bladeroot: starting the agent'
    python3 -s -S -m bladeroot.agent
    echo "bladeroot: the agent ended (code $?); it starts again in $pause s"
    case " $(cat /proc/cmdline) " in
        *' bladeroot.debug '*) echo 'bladeroot: a shell, as asked for; leave it with exit'; setsid cttyhack sh ;;
    esac
    sleep $pause
    [ $pause -ge 300 ] || pause=$((pause * 2))
done
