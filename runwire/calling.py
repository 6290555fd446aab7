"""What engines, and whoever calls them, go by beside the contract: the gateway, and the Python client."""

REACH = 1.5
"""Seconds until an engine that cannot be reached is given up for another one."""

FULL = {"DRAINING", "TOO_MANY_RUNS"}
"""Why an engine takes no run where another may."""
NOWHERE = "NO_SUCH_RUN_ANYWHERE"
"""The reason of an engine that has no run which no other has either: they share what they have."""
SHARED = ("runwire-shared", "1")
"""What a call's initial metadata says where engines share their runs: whoever asked one need ask no other."""
ACTS_FOR = "runwire-user"
"""Where a service says for which user it calls. A gateway never says it."""
ACTS_FOR_BINARY = f"{ACTS_FOR}-bin"
"""The same, for a name that is not plain ASCII: as UTF-8."""
DEVELOPMENT = ("runwire-development", "1")
"""What it says where everybody is believed: a gateway must not carry that to the public."""

OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # the engine bounds what it sends
    # A window of 64 KiB and no more. One that grows would hold megabytes for a reader who doesn't read; and what is
    # under way when a connection is lost has to be less than what the engine keeps of a resumable run.
    ("grpc.http2.bdp_probe", 0),
    # An engine that comes back is found within two seconds; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # An engine that is gone without a word is noticed. The engine allows as many pings as this.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
"""What a channel to one is opened with."""
