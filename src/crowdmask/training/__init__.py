"""Training of the networks: data, losses, one visible loop."""
