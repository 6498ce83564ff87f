"""How replicas of a partition agree: who is in sync, what is committed, where logs part."""
