"""Features shared by training and the router, and what trains, exports and evaluates the packaged model."""
