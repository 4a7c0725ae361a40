"""The published helpers: messages, CIFAR's pickles, downloading CIFAR-100, preparing ImageNet."""
