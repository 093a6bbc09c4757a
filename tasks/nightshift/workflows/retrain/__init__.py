"""Steps of retrain_<pipeline> around the five stages."""
