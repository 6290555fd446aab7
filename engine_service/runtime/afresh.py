"""A run's process that is not forked but started: for agents whose modules cannot be forked."""

import ctypes
import os
import sys

from engine_service.runtime import child, registry, wait_for
from engine_service.runtime.agent import Agent
from engine_service.runtime.credentials import Credentials
from engine_service.runtime.folder import Folder
from engine_service.runtime.jail import Jail
from engine_service.runtime.warm_up import Rehearsal
from engine_service.wire import Terms
from runwire.service.kernel import PR_SET_DUMPABLE


def main() -> None:
    """Import the agents, and do one run. It has its user and its session already."""
    child.ignore_stops()
    wait_for.mend()
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    terms = Terms.read(sys.argv[3])
    work, events, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4]
    credentials = Credentials(terms.upstreams, terms.broker)
    credentials.announce()
    port = int(terms.broker.rpartition(":")[2] or 0)
    jail = Jail.inside(terms.jail, port) if terms.jail else None
    for descriptor in (work, events):
        os.set_inheritable(descriptor, False)
    agents: dict[str, type[Agent]] = {
        **registry.at_home(registry.load(terms.modules), terms),
        Rehearsal.name: Rehearsal,
    }
    child.ignore_stops()
    credentials.find()
    memory = child.data() + terms.memory
    if jail:
        jail.confine(folder)
    child.live(work, events, child.Given(agents, terms, credentials, Folder(folder)), memory)


if __name__ == "__main__":
    main()
