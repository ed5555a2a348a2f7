"""The agent's initramfs: what installs, in the memory of a machine that has nothing.

Three archives, one behind the other: this machine's user space with Python and the agent; the snapshot's
modules and firmware; what is the cluster's. Each is made, kept in a cache, and compressed on its own.
"""

from bladeroot.ops.initramfs.build import AgentFiles, AgentInfo, AgentPlan, plan_agent

__all__ = ["AgentFiles", "AgentInfo", "AgentPlan", "plan_agent"]
