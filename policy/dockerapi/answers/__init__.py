"""What the engine answered, reduced to what one user may see (I4). `policy.dockerapi.responses` is the door."""
