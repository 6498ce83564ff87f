"""Streams, retry and routing of the client."""

import os

# gRPC's own handlers around fork() crash one child in five where its event loop runs in a thread (1.85),
# and do nothing for grpc.aio. It reads this when it is first imported, which is below this package.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
