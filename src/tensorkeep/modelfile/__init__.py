"""The model file: one safetensors file that holds a whole state, every byte of it checked."""
