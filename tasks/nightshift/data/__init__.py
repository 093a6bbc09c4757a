"""Images and data sets: sources, decoding, shards, labels, duplicates, drift."""
