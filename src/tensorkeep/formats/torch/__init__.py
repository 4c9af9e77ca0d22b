"""PyTorch's files: zip archives, streams, tars, TorchScript, torch.export, torch.package, checkpoints in several files."""
