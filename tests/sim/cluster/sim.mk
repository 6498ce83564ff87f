# The simulated cluster: real machines in virtual time, with everything around them going wrong.
.PHONY: sim sim-mutants

sim: $(VENV)/.stamp ## clusters in virtual time with everything going wrong (SEEDS=2000, FROM=0); a failing seed prints the least it takes
	@$(BIN)/python -m tests.sim.cluster.run $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM))

sim-mutants: $(VENV)/.stamp ## plant known bugs into replication and control, one by one: the simulation must catch each (NAMES="…")
	@$(BIN)/python -m tests.sim.cluster.hunt $(NAMES)
