# Proofs that take longer than the test suite lets them, and what shows the whole thing at work.
.PHONY: torture demo

torture: $(VENV)/.stamp ## kill a broker under load and check every promise (ROUNDS=50, SEED=… repeats a run)
	$(BIN)/python -m tests.e2e.kill --rounds $(or $(ROUNDS),50) $(if $(SEED),--seed $(SEED))
