"""What is measured of a model: scores now; calibration, slices and perturbations have their own files."""
