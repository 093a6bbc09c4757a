"""ONNX files at work: runtimes, predictions, embeddings, similarity."""
