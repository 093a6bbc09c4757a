"""Objects of an S3 server, through obstore. `nightshift.storage` is the way in."""
