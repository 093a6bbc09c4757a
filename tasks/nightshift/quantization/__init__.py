"""ONNX export, calibration, fake quantization and the recipes."""
