"""The pickle machine: runs every opcode and imports nothing."""
