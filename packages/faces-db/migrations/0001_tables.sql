-- Faces, their descriptors and the lists that link them. Any SQL client may write these tables: the triggers of
-- 0002_feed.sql keep each list's change feed exact.

CREATE TABLE faces.list (
  list_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  -- Changes after a restore: revisions of another history say nothing about this one.
  history_id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text NOT NULL,
  account_id text NOT NULL DEFAULT '',
  -- Feed rows up to this revision were compacted away. Only compaction writes it, never the feed.
  compacted_revision bigint NOT NULL DEFAULT 0,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX list_name_idx ON faces.list (name, create_time);

CREATE TABLE faces.face (
  face_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  account_id text NOT NULL DEFAULT '',
  external_id text,
  user_data text,
  create_time timestamptz NOT NULL DEFAULT now(),
  -- Also moves when the face is linked: see faces.touch_faces.
  update_time timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX face_external_id_key ON faces.face (account_id, external_id) WHERE external_id IS NOT NULL;

CREATE TABLE faces.descriptor (
  face_id uuid NOT NULL REFERENCES faces.face ON DELETE CASCADE,
  descriptor_version integer NOT NULL CHECK (descriptor_version >= 0),
  -- float32 little-endian, dim × 4 bytes, unit norm.
  data bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (face_id, descriptor_version)
);
-- 512 dimensions are 2,048 bytes: just past the threshold at which Postgres moves a value out of line, and a
-- snapshot would then look up every descriptor in the TOAST table. Floats do not compress, so EXTERNAL spares the
-- attempt; the high target keeps rows in line up to a page. Longer ones still go out of line.
ALTER TABLE faces.descriptor ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE faces.descriptor SET (toast_tuple_target = 8160);

CREATE TABLE faces.list_face (
  list_id uuid NOT NULL REFERENCES faces.list ON DELETE CASCADE,
  face_id uuid NOT NULL REFERENCES faces.face ON DELETE CASCADE,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (list_id, face_id)
);
CREATE INDEX list_face_face_id_idx ON faces.list_face (face_id);

-- No reference to the face: a feed row outlives it.
CREATE TABLE faces.list_change (
  list_id uuid NOT NULL REFERENCES faces.list ON DELETE CASCADE,
  revision bigint NOT NULL CHECK (revision > 0),
  face_id uuid NOT NULL,
  op text NOT NULL CHECK (op IN ('link', 'unlink', 'replace')),
  -- Running: linked faces, and nodes of a graph that died (unlinks and replacements), after this change.
  face_count bigint NOT NULL,
  removed_total bigint NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (list_id, revision)
);

-- Rows of a source that are committed, so that an interrupted import goes on where it stopped.
CREATE TABLE faces.import_progress (
  list_id uuid NOT NULL REFERENCES faces.list ON DELETE CASCADE,
  source_key text NOT NULL,
  done_rows bigint NOT NULL DEFAULT 0,
  imported bigint NOT NULL DEFAULT 0,
  bad bigint NOT NULL DEFAULT 0,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (list_id, source_key)
);
