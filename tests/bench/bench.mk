# Measurements of this machine; their results are in the ignored folder bench-results.
.PHONY: bench-unary

bench-unary: $(VENV)/.stamp ## unary Produce beside a bare gRPC echo of the same message (ROUNDS=5)
	$(BIN)/python -m tests.bench.unary --json bench-results/unary.json $(if $(ROUNDS),--rounds $(ROUNDS))
