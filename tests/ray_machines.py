"""A Ray cluster of two machines with one CPU each, as processes of this machine. Prints its address, loses the second machine at the first line of input.

A program of its own: Ray leaves pipes and threads behind in the process that starts it. A raylet gives its agents 15 s to start, which a busy
machine takes longer for: ports are given, what is not needed is left out, and what failed is started again.
"""

import socket
import sys
from collections.abc import Callable
from typing import Any

from lmdissect.pipeline.ray_executor import import_ray

import_ray()  # with its settings, before anything of it is used

from ray.cluster_utils import Cluster  # noqa: E402

__all__: list[str] = []

_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def free_ports() -> dict[str, int]:
    """A free port for each of a machine's agents."""
    found = {}
    for name in _PORTS:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found[name] = int(probe.getsockname()[1])
    return found


def start_machine(start: Callable[..., Any], **settings: Any) -> Any:
    """Call ``start`` with the settings of one machine, up to five times: a raylet whose agents are slow ends itself."""
    for _ in range(4):
        try:
            return start(num_cpus=1, include_log_monitor=False, no_monitor=True, **settings, **free_ports())
        except Exception as error:  # noqa: BLE001 - Ray raises no other class
            print(f"once more: {error}", file=sys.stderr)
    return start(num_cpus=1, include_log_monitor=False, no_monitor=True, **settings, **free_ports())


if __name__ == "__main__":
    cluster = start_machine(lambda **settings: Cluster(initialize_head=True, head_node_args=settings), include_dashboard=False)
    machine = start_machine(cluster.add_node)
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(machine, allow_graceful=False)
        print("lost", flush=True)
    sys.stdin.readline()
    cluster.shutdown()
