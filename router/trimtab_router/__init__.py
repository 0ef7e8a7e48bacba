"""The router: decides a plan for each query and streams the engine's bytes through."""
