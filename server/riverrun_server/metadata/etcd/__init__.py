"""The metadata store of a cluster: etcd, over its own gRPC API."""
