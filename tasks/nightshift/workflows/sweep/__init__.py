"""Steps of sweep_<pipeline>: hyperparameter search with Optuna."""
