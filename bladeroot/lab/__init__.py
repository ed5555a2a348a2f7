"""A cluster in a box: process blades in network namespaces, and QEMU to boot their disks."""
