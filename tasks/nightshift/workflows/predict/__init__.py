"""Steps of predict_<pipeline>: batch prediction."""
