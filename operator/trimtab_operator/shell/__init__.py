"""I/O around the core: the API server, Prometheus, the lease, metrics."""
