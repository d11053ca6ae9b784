"""What ends by itself: containers whose time is over. Acts through the allocator's and the proxy's sockets alone."""
