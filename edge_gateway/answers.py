"""Answers to what runs ask, on their way to the engine that has the run; and what it says to them."""

from collections.abc import Sequence

import grpc
import grpc.aio
from runwire.v1.engine_pb2 import AnswerRequest, AnswerResult, RunResponse
from runwire.v1.gateway_pb2 import AnswerFrame

from edge_gateway import statuses
from edge_gateway.close_codes import SENTENCES
from edge_gateway.engines import Engine, Metadata, UnreachableError
from runwire.calling import NOWHERE

NOT_FOUND, UNAVAILABLE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE
SILENT = {UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


async def bring(frame: AnswerFrame, engines: Sequence[Engine], said: Metadata) -> bytes:
    """Bring an answer to the engine that has the run, whichever that is, and return what a socket is told of it."""
    request = AnswerRequest(
        run_id=frame.run_id, request_id=frame.request_id, outcome=frame.outcome, content=frame.content
    )
    unknown = AnswerResult(request_id=frame.request_id, code=UNAVAILABLE.value[0], message=SENTENCES[UNAVAILABLE])
    result, is_silent = unknown, False
    for engine in engines:
        try:
            with engine.held():
                await engine.answer(request, said)
        except UnreachableError:
            is_silent = True
        except grpc.aio.AioRpcError as error:
            is_silent |= statuses.code(error) in SILENT
            if statuses.code(error) not in SILENT:
                result = _refused(frame, error)
            if statuses.code(error) not in {NOT_FOUND, *SILENT}:
                break
            if statuses.reason(error) == NOWHERE:
                is_silent = False
                break
        else:
            result = AnswerResult(request_id=frame.request_id)
            break
    if is_silent and result.code == NOT_FOUND.value[0]:
        result = unknown  # the one that has the run may be the one that says nothing
    return RunResponse(run_id=frame.run_id, answers=[result]).SerializeToString()


def _refused(frame: AnswerFrame, error: grpc.aio.AioRpcError) -> AnswerResult:
    code = statuses.code(error)
    result = AnswerResult(request_id=frame.request_id, code=code.value[0])
    result.message = statuses.sentence(error) or SENTENCES[code]
    result.violations.update(statuses.violations(error))
    return result
