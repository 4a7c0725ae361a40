"""Training half: methods learn from batches and a replay buffer; metrics and reports follow."""
