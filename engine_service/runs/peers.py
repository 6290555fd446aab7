"""A user's runs, wherever they are: here, or at other engines that share a store with this one."""

import asyncio
import base64
import datetime
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import structlog
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import AnswerRequest, RunInfo

from engine_service.runs.admission import Admission
from engine_service.runs.caller import Caller
from engine_service.runs.outcome import Verdict
from engine_service.runs.refusal import Refusal, draining, engine_away, no_such_run, packed, run_elsewhere, unpacked
from engine_service.runs.resumable import Resumable, Resumables
from engine_service.runs.run import CANCELLED, LOST, Run
from engine_service.runs.visits import Guests, Visit, ask
from engine_service.stores.store import AwayError, Left, Message, NotAdoptedError, Place, Store
from engine_service.wire import Work, event_frame, stamp

SURE = 2.0
"""Seconds until whoever cancels a run hears that it may go on all the same: what it saved cannot be struck out yet."""


AT_ONCE = 8
"""Runs that are handed over at once."""
PROMISED = 5.0
"""Seconds that a place is kept for a run of which another engine has asked whether it could go on here."""


class Promise(NamedTuple):
    """A place that is kept for another engine's run."""

    give_back: Callable[[], None]
    timer: asyncio.TimerHandle


class Peers:
    """Does what callers ask of their runs. What another engine has is done there."""

    def __init__(
        self,
        store: Store,
        admission: Admission,
        resumables: Resumables,
        can_go_on: Callable[[str], bool],
        make_again: Callable[[Work], Run | None],
        on_renewed: Callable[[float], None],
    ) -> None:
        self._store = store
        self._can_go_on = can_go_on
        self._make_again = make_again
        self._admission = admission
        self._resumables = resumables
        self._on_renewed = on_renewed
        self._guests = Guests(store)
        self._visits = dict[str, Visit]()
        self._promises: dict[tuple[str, str], Promise] = {}
        self._abandoning = set[asyncio.Task[None]]()

    async def cancel(self, caller: Caller, run_id: str) -> None:
        """Stop a user's run. Raises a Refusal."""
        if found := self._of(caller, run_id):
            await self.stop(found, CANCELLED)
        elif not (place := await self._place(caller, run_id)).info.is_over:
            await self._ask(place, caller, run_id, {"do": "cancel"})

    async def answer(self, caller: Caller, request: AnswerRequest) -> None:
        """Answer a question of a user's run. Raises a Refusal."""
        by, may_approve = caller.pays, caller.may_approve
        if found := self._of(caller, request.run_id):
            found.questions.answer(request, by, may_approve=may_approve)
        else:
            place = await self._place(caller, request.run_id)
            message = {"do": "answer", "request": _packed(request), "by": by, "may_approve": may_approve}
            await self._ask(place, caller, request.run_id, message)

    async def list(self, caller: Caller) -> list[RunInfo]:
        """List a user's runs: those that go on, and those that can still be read."""
        user_id = caller.user_id
        found = {info.run_id: info for info in self._own(user_id)}
        with suppress(AwayError):
            places = await self._store.everywhere(user_id)
            for run_id, place in places.items():
                if place.is_lasting:
                    found.setdefault(run_id, place.info)
            engines = {place.engine for place in places.values()} - {self._store.engine}
            asked = (self._store.ask(engine, {"do": "list", "user": user_id}) for engine in engines)
            for said in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(said, dict):
                    infos = (RunInfo.FromString(base64.b64decode(info)) for info in said["runs"])
                    found |= {info.run_id: info for info in infos}
        return [info for info in found.values() if caller.may_see(info.service)]

    async def find(self, caller: Caller, run_id: str) -> "Resumable | Visit":
        """Return a user's resumable run. Raises a Refusal."""
        resumable = self._resumables.find(caller.user_id, run_id)
        if resumable and caller.may_see(resumable.service):
            return resumable
        place = await self._place(caller, run_id)
        if not place.is_lasting:
            raise no_such_run()
        if self._admission.is_closed:
            raise draining()
        return Visit(self._store, self._visits, caller.user_id, run_id, place)

    async def hear(self, message: Message) -> Message:
        """Do what another engine asks for."""
        try:
            return await self._do(message, str(message.get("user")), str(message.get("run")))
        except Refusal as refusal:
            return {"refusal": packed(refusal)}

    def lapse(self, user_id: str, run_id: str) -> None:
        """Hear that a resumable run is perhaps another engine's by now."""
        if resumable := self._resumables.find(user_id, run_id):
            if resumable.is_saved:
                self._abandoning.add(task := asyncio.create_task(self._let_go(resumable)))
                task.add_done_callback(self._abandoning.discard)
            else:
                resumable.stop(LOST)
        elif run := self._admission.find(user_id, run_id):  # it is yet to start
            run.stop(LOST, 0)

    async def _let_go(self, resumable: Resumable) -> None:
        if await resumable.abandon():
            self._resumables.lose(resumable.user_id, resumable.run_id)

    async def abandon(self, user_id: str, run_id: str) -> bool:
        """End a run here without a word, so that it can go on elsewhere; False where it ends by itself."""
        resumable = self._resumables.find(user_id, run_id)
        if resumable is None:
            return False
        left = resumable.left
        if not await resumable.abandon():
            return False
        await resumable.settle(left)
        return True

    def lose(self, user_id: str, run_id: str) -> None:
        """Hear that one is."""
        if resumable := self._resumables.find(user_id, run_id):
            resumable.stop(LOST, grace=0)
        self._resumables.lose(user_id, run_id)

    def send_away(self) -> None:
        """Let whoever reads other engines' runs here read on elsewhere."""
        for visit in tuple(self._visits.values()):
            visit.send_away(draining())

    async def hand_over(self) -> None:
        """Let runs go on at other engines, as far as they can."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def hand_over(each: Resumable) -> None:
            try:
                async with turn:
                    await self._store.hand_over(each.user_id, each.run_id, each.pays)
            except Exception:  # noqa: BLE001 - others are not to end for that
                structlog.get_logger().exception("a run cannot be handed over", run_id=each.run_id)

        await asyncio.gather(*(hand_over(each) for each in self._resumables.saved()))

    def reserve(self, info: RunInfo, user_id: str) -> Callable[[], None] | None:
        """Hold a place for a run that may go on here, or the one that was promised; None if it can't."""
        if promise := self._promises.pop((user_id, info.run_id), None):
            promise.timer.cancel()
            return promise.give_back
        try:
            self._admission.check(user_id, info.run_id, info.service)
        except Refusal:
            return None
        if self._resumables.find(user_id, info.run_id) or not self._can_go_on(info.agent):
            return None
        return self._admission.reserve()

    def make_room(self, user_id: str) -> bool:
        """Forget something that is kept for absent callers."""
        return self._resumables.make_room(user_id)

    async def adopt(self, left: Left) -> None:
        """Let one go on here. Raises NotAdoptedError."""
        deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=left.seconds)
        run = self._make_again(replace(left.work, deadline=deadline))
        if run is None:
            raise NotAdoptedError
        await self._resumables.adopt(run, left)

    def end_of(self, info: RunInfo) -> bytes:
        """Return how a run ends whose engine is gone."""
        return event_frame(stamp(pb.Event(seq=info.last_seq, agent=info.agent, agent_failed=LOST)))

    def renew(self, until: float) -> None:
        """Hear until when resumable runs are our own."""
        self._on_renewed(until)

    async def _do(self, message: Message, user_id: str, run_id: str) -> Message:
        match message["do"]:
            case "list":
                return {"runs": [_packed(info) for info in self._own(user_id)]}
            case "cancel":
                await self.stop(self._found(user_id, run_id), CANCELLED)
            case "answer":
                request = AnswerRequest.FromString(base64.b64decode(message["request"]))
                found = self._found(user_id, run_id)
                found.questions.answer(request, message["by"], may_approve=message["may_approve"])
            case "may adopt" | "adopt":
                await self._take(message, user_id, run_id)
            case "attach":
                await self._guests.attach(self._lasting(user_id, run_id), message)
            case "read":
                self._guests.hear(message)
            case "detach":
                self._guests.detach(message)
            case "send away" if visit := self._visits.get(message["reader"]):
                visit.send_away(unpacked(message["refusal"]))
            case _:
                pass
        return {}

    async def _take(self, message: Message, user_id: str, run_id: str) -> None:
        """Let a run of another engine go on here, or say whether that could be. Raises a Refusal."""
        if message["do"] == "adopt":
            if not await self._store.adopt(user_id, run_id, message):
                raise engine_away()
        elif give_back := self.reserve((await self._place(Caller(user_id), run_id)).info, user_id):
            whose = user_id, run_id
            timer = asyncio.get_running_loop().call_later(PROMISED, self._break_promise, whose)
            self._promises[whose] = Promise(give_back, timer)
        else:
            raise engine_away()

    def _break_promise(self, whose: tuple[str, str]) -> None:
        self._promises.pop(whose).give_back()

    def _of(self, caller: Caller, run_id: str) -> Run | Resumable | None:
        """Return a run that is here, and that a caller may see. Raises as `_here`."""
        user_id = caller.user_id
        found = self._resumables.find(user_id, run_id) or self._admission.find(user_id, run_id)
        return self._here(user_id, run_id) if found and caller.may_see(found.service) else None

    def _here(self, user_id: str, run_id: str) -> Run | Resumable | None:
        """Return a run that is here. Raises a Refusal for one that is about to go on elsewhere."""
        resumable = self._resumables.find(user_id, run_id)
        if resumable and resumable.is_abandoned:
            raise run_elsewhere()
        return resumable or self._admission.find(user_id, run_id)

    def _found(self, user_id: str, run_id: str) -> Run | Resumable:
        """Return one that others take to be here. Raises a Refusal: it has just ended, or is about to go on here."""
        if found := self._here(user_id, run_id):
            return found
        raise engine_away()

    async def stop(self, found: Run | Resumable, verdict: Verdict) -> None:
        """Stop one, and see that nobody goes on with it. Raises a Refusal where that can't be seen to yet."""
        found.stop(verdict)
        if isinstance(found, Resumable):
            try:
                async with asyncio.timeout(SURE):
                    await found.is_struck_out()
            except TimeoutError:
                raise engine_away() from None

    def _own(self, user_id: str) -> Sequence[RunInfo]:
        going_on = {run_id: run.info() for run_id, run in self._admission.of(user_id).items()}
        lasting = {each.run_id: each.info() for each in self._resumables.of(user_id)}
        return [info for run_id, info in (going_on | lasting).items() if run_id in lasting or not info.is_over]

    def _lasting(self, user_id: str, run_id: str) -> Resumable:
        if resumable := self._resumables.find(user_id, run_id):
            return resumable
        raise engine_away()

    async def _place(self, caller: Caller, run_id: str) -> Place:
        try:
            place = await self._store.where(caller.user_id, run_id)
        except AwayError:
            raise engine_away() from None
        if place is None or not caller.may_see(place.info.service):
            raise no_such_run(anywhere=bool(self._store.engine))
        return place

    async def _ask(self, place: Place, caller: Caller, run_id: str, message: dict[str, Any]) -> None:
        """Have another engine do something with a run."""
        await ask(self._store, place, {**message, "user": caller.user_id, "run": run_id})


def _packed(document: RunInfo | AnswerRequest) -> str:
    return base64.b64encode(document.SerializeToString()).decode()
