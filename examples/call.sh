grpcurl -plaintext -d '{"agent": "triage", "input": "My invoice is wrong"}' \
    127.0.0.1:50051 runwire.v1.EngineService/Run
