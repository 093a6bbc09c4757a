"""Objects of an S3 server, through obstore. `tasks.storage` is the way in."""
