"""The store: a folder, or a prefix of an object store, that holds the checkpoints of a run.

    store.json                     format version, chunk size
    checkpoints/0000001200.json    a manifest; its exclusive creation is the commit
    indexes/<writer>-<n>.idx       structure and chunk table
    packs/<writer>-<n>-<k>.pack    encoded chunks; immutable
    claims/<writer>-<n>.json       what save n of its writer still needs
    tags/<name>                    a manifest too: keeps its checkpoint whatever prune does

Source of the layout and the protocol: docs/store-format.md.
"""
