"""etcd's messages as generated from proto/riverrun_server/metadata/etcd/v3."""
