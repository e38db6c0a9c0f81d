"""A Ray cluster of a head and two machines with one CPU each, as processes of this machine. Prints its address; given the number of a worker process, it
loses the machine that the worker runs on.

A program of its own: Ray leaves pipes and threads behind in the process that starts it. A raylet gives its agents 15 s to start, which a busy
machine takes longer for: ports are given, what is not needed is left out, and what failed is started again.
"""

import socket
import sys
from collections.abc import Callable
from typing import Any

import psutil

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


def start_machine(start: Callable[..., Any], num_cpus: int, **settings: Any) -> Any:
    """Call ``start`` with the settings of one machine, up to five times: a raylet whose agents are slow ends itself."""
    settings = {**settings, "num_cpus": num_cpus, "include_log_monitor": False, "no_monitor": True}
    for _ in range(4):
        try:
            return start(**settings, **free_ports())
        except Exception as error:  # noqa: BLE001 - Ray raises no other class
            print(f"once more: {error}", file=sys.stderr)
    return start(**settings, **free_ports())


if __name__ == "__main__":
    cluster = start_machine(lambda **settings: Cluster(initialize_head=True, head_node_args=settings), 0, include_dashboard=False)
    machines = [start_machine(cluster.add_node, 1) for _ in range(2)]
    print(cluster.address, flush=True)
    worker = sys.stdin.readline().strip()
    if worker:
        raylet = psutil.Process(int(worker)).ppid()
        cluster.remove_node(next(machine for machine in machines if machine.all_processes["raylet"][0].process.pid == raylet), allow_graceful=False)
        print("lost", flush=True)
    sys.stdin.readline()
    cluster.shutdown()
