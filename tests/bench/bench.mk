# Measurements of this machine; their results are in the ignored folder bench-results.
.PHONY: bench bench-quick bench-unary bench-replication bench-groups

# Kafka is fetched by the first run, which needs Java and Maven; nothing else does.
bench: $(VENV)/.stamp ## Riverrun beside Apache Kafka, in turn, into bench-results (ROUNDS=3; ONLY=riverrun)
	$(BIN)/python -m tests.bench.compare $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

bench-quick: $(VENV)/.stamp ## the same in one small round: to see it at work, not for its figures
	$(BIN)/python -m tests.bench.compare --quick $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

bench-unary: $(VENV)/.stamp ## unary Produce beside a bare gRPC echo of the same message (ROUNDS=5)
	$(BIN)/python -m tests.bench.unary --json bench-results/unary.json $(if $(ROUNDS),--rounds $(ROUNDS))

bench-replication: $(VENV)/.stamp etcd ## topics of three replicas beside topics of one, on three brokers (ROUNDS=3)
	$(BIN)/python -m tests.bench.replication --json bench-results/replication.json $(if $(ROUNDS),--rounds $(ROUNDS))

bench-groups: $(VENV)/.stamp etcd ## groups: deaths under load, a thousand members, ten thousand groups, throughput (PART=failover, members, groups, throughput)
	$(BIN)/python -m tests.bench.groups $(if $(PART),--part $(PART))
