"""Internal messages as generated from proto/riverrun_server/wire/v1."""
