"""The Kubernetes operator: reconciles pools and policies and moves GPU replicas between tiers."""
