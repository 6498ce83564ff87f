"""Messages between brokers as generated from proto/riverrun_server/peer/v1."""
