"""`trimtab`: the command line and the local mode."""
