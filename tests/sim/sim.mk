# Simulations in virtual time, with everything around the code under test going wrong.
.PHONY: sim sim-cluster sim-groups sim-mutants

SIM_SEEDS = $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM))

sim: sim-cluster sim-groups ## clusters and consumer groups in virtual time with everything going wrong (SEEDS=2000, FROM=0); a failing seed prints the least it takes

sim-cluster: $(VENV)/.stamp ## of these the clusters: replication and control
	@$(BIN)/python -m tests.sim.cluster.run $(SIM_SEEDS)

sim-groups: $(VENV)/.stamp ## of these the consumer groups: coordinators, gateways, members
	@$(BIN)/python -m tests.sim.groups.run $(SIM_SEEDS)

sim-mutants: $(VENV)/.stamp ## plant known bugs into replication, control and groups, one by one: the simulations must catch each (NAMES="…")
	@$(BIN)/python -m tests.sim.hunt $(NAMES)
