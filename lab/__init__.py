"""The whole system on any machine, in namespaces of its own."""
