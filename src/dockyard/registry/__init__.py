"""Registry: stores images and artifacts for whoever may see them, on one port, and forgets what nobody refers to.

Nouns: a *repository* `namespace/name` holds *tags* that point at *manifests*, and links to *blobs*; a *namespace* is an
*account* (user or organisation); *teams* live in organisations; a *level* (read, read-write, admin) is what someone may
do to a repository. An *upload* becomes a blob when its digest is proven. All that is known lives in one database
(`database.py`; the tree is drawn in `schema.py`), all that is large in a blob store (`ports.BlobStore`).

Invariants, those that are absences too: a manifest is never stored before its blobs are; a blob row is never written
before its bytes are on disk; bytes never change under a digest; two uploads never share a place in the blob store, so
the collector can never remove what somebody has just pushed again; no replica holds state that another one needs; a
token is never accepted for another service, with another algorithm, or from a key of the caller's choice; nothing
here imports the engine or starts a process.
"""
