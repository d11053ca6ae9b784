"""Client connections: who asks, what is asked, forward or refuse, filter the answer."""
