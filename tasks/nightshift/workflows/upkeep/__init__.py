"""Steps of upkeep: garbage collection, retention, integrity."""
