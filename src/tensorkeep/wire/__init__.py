"""Wire: grammars that several formats are written in, each behind bounded, named reads.

Lives here: extents of bytes, cursors, zip, protobuf, flatbuffers and the like. Lives elsewhere: what the bytes mean (formats).
"""
