"""Networks and their weights, in torch."""
