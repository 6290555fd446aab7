"""What calls to models took, by model: an agent's own, and those of the agents that it delegated to."""

from runwire.v1 import events_pb2 as pb

MAX_MODELS = 64
"""Models that are told apart. What else is called is summed up as OTHERS."""
OTHERS = "others"
MOST = 2**32 - 1
FIGURES = ("input_tokens", "output_tokens", "cached_input_tokens")


class Meter:
    """Sums up what an agent's calls to models took."""

    def __init__(self, parent: "Meter | None" = None, before: bytes = b"") -> None:
        self._parent = parent
        self._models = {each.model: each for each in pb.Usage.FromString(before).models}

    @property
    def usage(self) -> pb.Usage | None:
        """What all calls took together; None when there were none."""
        return pb.Usage(models=self._models.values()) if self._models else None

    @property
    def root(self) -> "Meter":
        """The run's own."""
        return self._parent.root if self._parent else self

    def count(self, call: pb.ModelCalled) -> None:
        """Add a call, here and for whoever delegated."""
        name = call.model if call.model in self._models or len(self._models) < MAX_MODELS else OTHERS
        sums = self._models.setdefault(name, pb.ModelUsage(model=name))
        sums.requests += 1
        for figure in FIGURES:
            setattr(sums, figure, min(getattr(sums, figure) + getattr(call, figure), MOST))
        if self._parent:
            self._parent.count(call)
