"""Steps of promote_<pipeline>: audit, decide, move the alias."""
