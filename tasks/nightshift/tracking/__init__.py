"""MLflow and the ledger of decisions: the only room that knows MLflow."""
