"""TensorFlow's files: checkpoints of both versions, SavedModels, frozen graphs."""
