"""Several nodes of a Ray cluster on this machine's loopback, until standard input ends: a program of its own.

Reads what a further node has, as JSON, a line each; writes where the cluster is, then each node's id and raylet.
"""

import json
import sys

from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster

HEAD = {"num_cpus": 8, "include_dashboard": False, "object_store_memory": 80 * 1024 * 1024}


def tell(**about: object) -> None:
    print(json.dumps(about), flush=True)


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    tell(address=cluster.address)
    try:
        for line in sys.stdin:
            node = cluster.add_node(object_store_memory=80 * 1024 * 1024, **json.loads(line))
            [raylet] = node.all_processes[PROCESS_TYPE_RAYLET]
            tell(node=node.node_id, raylet=raylet.process.pid)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
