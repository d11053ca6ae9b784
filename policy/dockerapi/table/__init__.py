"""The route table, one module for each kind of object. `policy.dockerapi.routes` puts it together."""
