"""Streams, retry and routing of the client."""

import os

# gRPC's own handlers around fork() crash one child in five where its event loop runs in a thread (1.85),
# and do nothing for grpc.aio (docs/adr/0014). It reads this when it is first imported, which is below
# this package; a value that is set already wins.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
