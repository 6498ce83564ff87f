"""Between brokers: replication streams, and what they carry."""
