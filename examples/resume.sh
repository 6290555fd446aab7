ID=$(cat /proc/sys/kernel/random/uuid)
grpcurl -plaintext -d '{"agent": "triage", "input": "Help", "run_id": "'$ID'", "resume_window": "60s"}' \
    127.0.0.1:50051 runwire.v1.EngineService/Run
grpcurl -plaintext -d '{"run_id": "'$ID'", "after_seq": 3}' 127.0.0.1:50051 runwire.v1.EngineService/Resume
