"""Weight-sharing search: a supernet trained once, architectures found in it."""
