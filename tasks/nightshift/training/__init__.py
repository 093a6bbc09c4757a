"""Trainer, optimizers, data loaders, checkpoints, distributed training."""
