"""GPUs, MIG devices, leases."""
