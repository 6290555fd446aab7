"""What a service says to its operator: JSON lines, or plain text on a terminal."""

import logging
import sys

import structlog


def configure(service: str, level: str) -> None:
    """Send everything that is logged, by us and by libraries, to standard error in one format."""
    terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()

    def name(_: object, __: str, record: structlog.types.EventDict) -> structlog.types.EventDict:
        """Say whose line it is, and that first of all."""
        return {"service": service, "event": record.pop("event"), **record}

    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,  # what a library logs inside an agent's task is that run's
        name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        *((_readable,) if terminal else (structlog.processors.format_exc_info,)),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(_is_worth_it)
    logging.getLogger("websockets").setLevel(logging.WARNING)  # connections come and go
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(processors=[remove, renderer], foreign_pre_chain=shared)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _is_worth_it(record: logging.LogRecord) -> bool:
    """Leave out what gRPC takes for an error of ours: a caller who is gone before the answer. Anybody can be."""
    return not (record.name.startswith("grpc") and str(record.msg).startswith("ExecuteBatchError raised in core"))


def _readable(_: object, __: str, record: structlog.types.EventDict) -> structlog.types.EventDict:
    """Have an agent's traceback printed as one, with its lines."""
    if traceback := record.pop("traceback", None):
        record["exception"] = traceback
    return record
