"""Compat: the names of other libraries over ours, for a change of one import line.

Lives here: `safetensors` and `torch`, each with the names, the arguments and the errors that people know from there. Lives elsewhere:
whatever these names do. This room alone beside `frameworks` imports frameworks, because its modules bear their names.
"""
