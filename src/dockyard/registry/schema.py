"""The tables, once for both databases ({id}, {bytes} differ).

    accounts ─┬─ memberships (org ─ user, owner or member)       blobs      digest, size, where its bytes are
              ├─ teams ── team_members                             │        (inline when small, else a location)
              ├─ secrets (robot and personal tokens, refresh)    links      repository ─ blob: who may see it
              └─ repositories ─┬─ grants (team or user, level)     │
                               ├─ manifests ── edges (manifest ─ digest it refers to)
                               ├─ tags (name ─ digest)
                               └─ uploads (small ones hold their bytes)
    webhooks ── deliveries    audit    jobs    rules (retention)    upstreams    mirrors    settings    signing_keys

`epoch` has one row that every change of tags, manifests, links, accounts or grants raises: caches compare it.
A location is new for every upload, even of the same digest: what the collector deletes can never be what a pusher has
just written. Times are seconds since 1970 as floating point numbers.
"""

from __future__ import annotations

VERSION = 2

_TABLES = """
CREATE TABLE epoch (one INTEGER PRIMARY KEY, value BIGINT NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE signing_keys (kid TEXT PRIMARY KEY, private TEXT NOT NULL, created DOUBLE PRECISION NOT NULL);
CREATE TABLE accounts (
  id {id}, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, password TEXT, full_name TEXT NOT NULL DEFAULT '',
  admin INTEGER NOT NULL DEFAULT 0, active INTEGER NOT NULL DEFAULT 1, source TEXT NOT NULL DEFAULT 'local',
  quota BIGINT, created DOUBLE PRECISION NOT NULL);
CREATE TABLE memberships (
  org BIGINT NOT NULL REFERENCES accounts(id) ON DELETE CASCADE,
  account BIGINT NOT NULL REFERENCES accounts(id) ON DELETE CASCADE, owner INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (org, account));
CREATE TABLE teams (
  id {id}, org BIGINT NOT NULL REFERENCES accounts(id) ON DELETE CASCADE, name TEXT NOT NULL,
  ldap_mode TEXT NOT NULL DEFAULT '', ldap_base TEXT NOT NULL DEFAULT '', ldap_match TEXT NOT NULL DEFAULT '',
  UNIQUE (org, name));
CREATE TABLE team_members (
  team BIGINT NOT NULL REFERENCES teams(id) ON DELETE CASCADE,
  account BIGINT NOT NULL REFERENCES accounts(id) ON DELETE CASCADE, admin INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (team, account));
CREATE TABLE secrets (
  id {id}, account BIGINT NOT NULL REFERENCES accounts(id) ON DELETE CASCADE, kind TEXT NOT NULL,
  digest TEXT NOT NULL UNIQUE, label TEXT NOT NULL DEFAULT '', level INTEGER NOT NULL DEFAULT 3,
  service TEXT NOT NULL DEFAULT '', created DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION,
  used DOUBLE PRECISION);
CREATE TABLE repositories (
  id {id}, name TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL, public INTEGER NOT NULL,
  description TEXT NOT NULL DEFAULT '', readme TEXT NOT NULL DEFAULT '', immutable TEXT NOT NULL DEFAULT '',
  stars INTEGER NOT NULL DEFAULT 0, pulls BIGINT NOT NULL DEFAULT 0, upstream TEXT NOT NULL DEFAULT '',
  created DOUBLE PRECISION NOT NULL, updated DOUBLE PRECISION NOT NULL);
CREATE INDEX repositories_namespace ON repositories (namespace, name);
CREATE INDEX repositories_public ON repositories (public, name);
CREATE TABLE grants (
  id {id}, namespace TEXT NOT NULL, repository BIGINT REFERENCES repositories(id) ON DELETE CASCADE,
  team BIGINT REFERENCES teams(id) ON DELETE CASCADE, account BIGINT REFERENCES accounts(id) ON DELETE CASCADE,
  level INTEGER NOT NULL);
CREATE INDEX grants_repository ON grants (repository);
CREATE INDEX grants_namespace ON grants (namespace);
CREATE TABLE blobs (
  digest TEXT PRIMARY KEY, size BIGINT NOT NULL, location TEXT NOT NULL, content {bytes},
  created DOUBLE PRECISION NOT NULL, touched DOUBLE PRECISION NOT NULL);
CREATE TABLE links (
  repository BIGINT NOT NULL REFERENCES repositories(id) ON DELETE CASCADE,
  digest TEXT NOT NULL REFERENCES blobs(digest), touched DOUBLE PRECISION NOT NULL, PRIMARY KEY (repository, digest));
CREATE INDEX links_digest ON links (digest);
CREATE TABLE manifests (
  id {id}, repository BIGINT NOT NULL REFERENCES repositories(id) ON DELETE CASCADE, digest TEXT NOT NULL,
  media_type TEXT NOT NULL, size BIGINT NOT NULL, content {bytes} NOT NULL, content_size BIGINT NOT NULL,
  artifact_type TEXT NOT NULL, subject TEXT NOT NULL DEFAULT '', pushed_by TEXT NOT NULL DEFAULT '',
  created DOUBLE PRECISION NOT NULL, touched DOUBLE PRECISION NOT NULL, UNIQUE (repository, digest));
CREATE INDEX manifests_subject ON manifests (repository, subject, digest);
CREATE TABLE edges (
  manifest BIGINT NOT NULL REFERENCES manifests(id) ON DELETE CASCADE, repository BIGINT NOT NULL,
  digest TEXT NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (manifest, digest, kind));
CREATE INDEX edges_digest ON edges (repository, digest, kind);
CREATE TABLE tags (
  repository BIGINT NOT NULL REFERENCES repositories(id) ON DELETE CASCADE, name TEXT NOT NULL,
  digest TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, updated DOUBLE PRECISION NOT NULL,
  pulled DOUBLE PRECISION, pushed_by TEXT NOT NULL DEFAULT '', PRIMARY KEY (repository, name));
CREATE INDEX tags_digest ON tags (repository, digest);
CREATE TABLE uploads (
  id TEXT PRIMARY KEY, repository TEXT NOT NULL, account TEXT NOT NULL, algorithm TEXT NOT NULL,
  size BIGINT NOT NULL, content {bytes}, started DOUBLE PRECISION NOT NULL, touched DOUBLE PRECISION NOT NULL);
CREATE TABLE audit (
  id {id}, at DOUBLE PRECISION NOT NULL, actor TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL,
  object TEXT NOT NULL, detail TEXT NOT NULL, refused INTEGER NOT NULL DEFAULT 0);
CREATE TABLE webhooks (
  id {id}, namespace TEXT NOT NULL, repository TEXT NOT NULL DEFAULT '', url TEXT NOT NULL, events TEXT NOT NULL,
  form TEXT NOT NULL, secret TEXT NOT NULL DEFAULT '', active INTEGER NOT NULL DEFAULT 1,
  created DOUBLE PRECISION NOT NULL);
CREATE TABLE deliveries (
  id {id}, webhook BIGINT NOT NULL REFERENCES webhooks(id) ON DELETE CASCADE, event TEXT NOT NULL,
  payload TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, due DOUBLE PRECISION, attempts INTEGER NOT NULL DEFAULT 0,
  status INTEGER, answer TEXT NOT NULL DEFAULT '', finished DOUBLE PRECISION);
CREATE INDEX deliveries_due ON deliveries (due);
CREATE TABLE jobs (
  id {id}, kind TEXT NOT NULL, state TEXT NOT NULL, dry_run INTEGER NOT NULL DEFAULT 0, actor TEXT NOT NULL,
  started DOUBLE PRECISION NOT NULL, beat DOUBLE PRECISION NOT NULL, finished DOUBLE PRECISION,
  stop INTEGER NOT NULL DEFAULT 0, done BIGINT NOT NULL DEFAULT 0, total BIGINT NOT NULL DEFAULT 0,
  freed BIGINT NOT NULL DEFAULT 0, log TEXT NOT NULL DEFAULT '');
CREATE TABLE rules (
  id {id}, namespace TEXT NOT NULL, repository TEXT NOT NULL, tags TEXT NOT NULL DEFAULT '*',
  keep_last INTEGER, keep_days DOUBLE PRECISION, pulled_days DOUBLE PRECISION, active INTEGER NOT NULL DEFAULT 1,
  created DOUBLE PRECISION NOT NULL);
CREATE TABLE upstreams (
  id {id}, host TEXT NOT NULL UNIQUE, prefix TEXT NOT NULL UNIQUE, url TEXT NOT NULL, username TEXT NOT NULL DEFAULT '',
  password TEXT NOT NULL DEFAULT '', fresh_seconds DOUBLE PRECISION NOT NULL, active INTEGER NOT NULL DEFAULT 1);
CREATE TABLE mirrors (
  id {id}, repository TEXT NOT NULL, direction TEXT NOT NULL, remote TEXT NOT NULL, tags TEXT NOT NULL DEFAULT '*',
  username TEXT NOT NULL DEFAULT '', password TEXT NOT NULL DEFAULT '', every_seconds DOUBLE PRECISION NOT NULL,
  last DOUBLE PRECISION, outcome TEXT NOT NULL DEFAULT '', active INTEGER NOT NULL DEFAULT 1);
INSERT INTO epoch (one, value) VALUES (1, 1);
"""

_SPELLING = {
    "sqlite": {"id": "INTEGER PRIMARY KEY", "bytes": "BLOB"},
    "postgresql": {"id": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "bytes": "BYTEA"},
}


# Version 2: search over a hundred thousand names in milliseconds. Words for what begins like the text, trigrams for what
# holds it; kept by triggers, so that nobody can forget them. Repositories change rarely, pushes do not touch these.
_SEARCH_SQLITE = [
    "CREATE VIRTUAL TABLE repository_words USING fts5(name, description, content='repositories', content_rowid='id',"
    " tokenize='unicode61', prefix='1 2 3')",
    "CREATE VIRTUAL TABLE repository_parts USING fts5(name, description, content='repositories', content_rowid='id',"
    " tokenize='trigram')",
    *(
        f"CREATE TRIGGER {table}_{event} AFTER {on} ON repositories BEGIN {body} END"
        for table in ("repository_words", "repository_parts")
        for event, on, body in (
            ("insert", "INSERT", f"INSERT INTO {table} (rowid, name, description) VALUES (new.id, new.name, new.description);"),
            ("delete", "DELETE", f"INSERT INTO {table} ({table}, rowid, name, description)"
             " VALUES ('delete', old.id, old.name, old.description);"),
            ("update", "UPDATE OF name, description", f"INSERT INTO {table} ({table}, rowid, name, description)"
             " VALUES ('delete', old.id, old.name, old.description);"
             f" INSERT INTO {table} (rowid, name, description) VALUES (new.id, new.name, new.description);"),
        )
    ),
    "INSERT INTO repository_words (repository_words) VALUES ('rebuild')",
    "INSERT INTO repository_parts (repository_parts) VALUES ('rebuild')",
]  # fmt: skip
_SEARCH_POSTGRESQL = [
    "CREATE INDEX repositories_begin ON repositories (name text_pattern_ops)",
    # Trigrams are an extension that the administrator of the server may have to allow; without it search scans.
    "DO $$ BEGIN CREATE EXTENSION IF NOT EXISTS pg_trgm;"
    " CREATE INDEX repositories_parts ON repositories USING gin (name gin_trgm_ops, description gin_trgm_ops);"
    " EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'search is slower without pg_trgm'; END $$",
]


def statements(dialect: str, version: int) -> list[str]:
    """From `version` to the next one."""
    if version == 0:
        spelled = _TABLES.format(**_SPELLING[dialect])
        return [s.strip() for s in spelled.split(";") if s.strip()]
    return _SEARCH_SQLITE if dialect == "sqlite" else _SEARCH_POSTGRESQL
