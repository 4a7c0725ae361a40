"""Published API: helpers that print messages, read CIFAR's pickles and prepare datasets."""
