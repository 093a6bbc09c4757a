"""What made a model, and making it again."""
