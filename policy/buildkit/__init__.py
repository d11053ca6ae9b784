"""What BuildKit's gRPC calls mean and what of them a user may ask: pure, as the rules are."""
