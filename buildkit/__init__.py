"""BuildKit's gRPC between a client and dockerd: HTTP/2, gRPC framing, messages. What is allowed is `policy.buildkit`'s."""
