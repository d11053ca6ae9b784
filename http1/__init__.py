"""HTTP/1.1 over Unix sockets for the two servers on the data path."""
