grpcurl -plaintext 127.0.0.1:50051 runwire.v1.EngineService/ListRuns
grpcurl -plaintext -d '{"run_id": "'$RUN'", "request_id": "'$QUESTION'", "outcome": "INPUT_OUTCOME_ACCEPTED"}' \
    127.0.0.1:50051 runwire.v1.EngineService/Answer
