-- The change feed. Statement-level triggers append one row per affected list and face, in the writer's own
-- transaction, whatever client it is.
--
-- Order. A writer holds the list's advisory lock from its append to its commit, so revisions become visible in
-- ascending order. The newest revision must be read by a statement that begins after the lock was obtained: under
-- READ COMMITTED each statement of a function gets a new snapshot, hence locking and appending are two statements.
-- Under REPEATABLE READ the snapshot is older than the lock; the primary key then refuses the revision and the
-- writer is told 40001.
--
-- Locks are taken in one order by every statement: faces ascending, rows of faces.list, advisory locks ascending.
--
-- session_replication_role = replica bypasses all of this.

-- True where every statement of the transaction has the same snapshot.
CREATE FUNCTION faces.has_fixed_snapshot() RETURNS boolean
LANGUAGE sql STABLE
RETURN pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable');

-- The functions below are called by the trigger functions, which set the search path. One row is by far the most
-- frequent case: statements of its own, without arrays, keep their plans.

-- Locks the lists' feeds until the transaction ends. Returns the lists that exist: one that is being deleted, by
-- this or by another transaction, needs no feed.
CREATE FUNCTION faces.lock_feeds(in_list_ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE
  existing uuid[];
  one_list_id uuid;
  lock_key bigint;
BEGIN
  IF faces.has_fixed_snapshot() THEN
    -- SHARE conflicts with compaction, which updates the row: a snapshot older than a compaction could reuse a
    -- revision that was compacted away, and no unique violation would tell.
    SELECT array_agg(locked.list_id) INTO existing FROM (
      SELECT l.list_id FROM faces.list l WHERE l.list_id = ANY (in_list_ids) ORDER BY l.list_id FOR SHARE
    ) locked;
  ELSIF cardinality(in_list_ids) = 1 THEN
    one_list_id := in_list_ids[1];
    SELECT l.list_id INTO one_list_id FROM faces.list l WHERE l.list_id = one_list_id FOR KEY SHARE;
    IF NOT FOUND THEN
      RETURN '{}';
    END IF;
    PERFORM pg_advisory_xact_lock(uuid_hash_extended(one_list_id, 5190));
    RETURN in_list_ids;
  ELSE
    SELECT array_agg(locked.list_id) INTO existing FROM (
      SELECT l.list_id FROM faces.list l WHERE l.list_id = ANY (in_list_ids) ORDER BY l.list_id FOR KEY SHARE
    ) locked;
  END IF;
  FOR lock_key IN
    SELECT DISTINCT uuid_hash_extended(list_id, 5190) FROM unnest(existing) AS list_id ORDER BY 1
  LOOP
    PERFORM pg_advisory_xact_lock(lock_key);
  END LOOP;
  RETURN coalesce(existing, '{}');
END $$;

-- Appends changes to feeds that lock_feeds returned. The arrays after the first run in parallel; what they hold of
-- other lists is left out.
CREATE FUNCTION faces.insert_changes(
  in_existing uuid[], in_list_ids uuid[], in_face_ids uuid[], in_ops text[], in_removed integer[]
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  one_list_id uuid;
  newest_revision bigint; newest_face_count bigint; newest_removed_total bigint;
BEGIN
  FOREACH one_list_id IN ARRAY in_existing LOOP
    SELECT lc.revision, lc.face_count, lc.removed_total
    INTO newest_revision, newest_face_count, newest_removed_total
    FROM faces.list_change lc WHERE lc.list_id = one_list_id ORDER BY lc.revision DESC LIMIT 1;
    IF NOT FOUND THEN
      newest_revision := 0; newest_face_count := 0; newest_removed_total := 0;
    END IF;
    IF cardinality(in_list_ids) = 1 THEN
      INSERT INTO faces.list_change (list_id, revision, face_id, op, face_count, removed_total)
      VALUES (one_list_id, newest_revision + 1, in_face_ids[1], in_ops[1],
              newest_face_count + CASE in_ops[1] WHEN 'link' THEN 1 WHEN 'unlink' THEN -1 ELSE 0 END,
              newest_removed_total + in_removed[1]);
    ELSE
      INSERT INTO faces.list_change (list_id, revision, face_id, op, face_count, removed_total)
      SELECT one_list_id,
             newest_revision + row_number() OVER running,
             change.face_id,
             change.op,
             newest_face_count + sum(change.face_delta) OVER running,
             newest_removed_total + sum(change.removed) OVER running
      FROM (
        SELECT c.face_id, c.op, c.removed,
               CASE c.op WHEN 'link' THEN 1 WHEN 'unlink' THEN -1 ELSE 0 END AS face_delta
        FROM unnest(in_list_ids, in_face_ids, in_ops, in_removed) AS c (list_id, face_id, op, removed)
        WHERE c.list_id = one_list_id
      ) change
      WINDOW running AS (ORDER BY change.face_delta, change.face_id ROWS UNBOUNDED PRECEDING);
    END IF;
  END LOOP;
END $$;

CREATE FUNCTION faces.append_changes(
  in_existing uuid[], in_list_ids uuid[], in_face_ids uuid[], in_ops text[], in_removed integer[]
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  -- With "off" others would see the revision before it is on disk: after a crash of Postgres it would be given out
  -- again, for another change, and who has seen it would miss that one.
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'local', true);
  END IF;
  IF faces.has_fixed_snapshot() THEN
    BEGIN
      PERFORM faces.insert_changes(in_existing, in_list_ids, in_face_ids, in_ops, in_removed);
    EXCEPTION WHEN unique_violation THEN
      RAISE EXCEPTION 'could not append to the change feed: the list was changed by another transaction'
        USING ERRCODE = 'serialization_failure', HINT = 'Retry the transaction.';
    END;
  ELSE
    PERFORM faces.insert_changes(in_existing, in_list_ids, in_face_ids, in_ops, in_removed);
  END IF;
END $$;

-- A descriptor's writer must know every list that its face is in, links that are being made included, or the index
-- would keep the old descriptor. So a link updates the row of its face and a descriptor's writer locks that row:
-- they exclude each other, and a descriptor's writer with an older snapshot is told 40001. A row that this
-- transaction has written itself is excluded already.
CREATE FUNCTION faces.touch_faces(in_face_ids uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF cardinality(in_face_ids) = 1 THEN
    UPDATE faces.face f SET update_time = now()
    WHERE f.face_id = in_face_ids[1] AND f.xmin <> pg_current_xact_id()::xid;
    RETURN;
  END IF;
  WITH foreign_face AS MATERIALIZED (
    SELECT f.face_id FROM faces.face f
    WHERE f.face_id = ANY (in_face_ids) AND f.xmin <> pg_current_xact_id()::xid
    ORDER BY f.face_id FOR NO KEY UPDATE
  )
  UPDATE faces.face f SET update_time = now() FROM foreign_face WHERE f.face_id = foreign_face.face_id;
END $$;

CREATE FUNCTION faces.on_list_face_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  linked_lists uuid[]; linked_faces uuid[];
  unlinked_lists uuid[]; unlinked_faces uuid[];
  existing uuid[];
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT array_agg(list_id), array_agg(face_id) INTO linked_lists, linked_faces FROM new_rows;
  ELSIF TG_OP = 'DELETE' THEN
    SELECT array_agg(list_id), array_agg(face_id) INTO unlinked_lists, unlinked_faces FROM old_rows;
  ELSE
    SELECT array_agg(list_id), array_agg(face_id) INTO linked_lists, linked_faces
    FROM (SELECT list_id, face_id FROM new_rows EXCEPT SELECT list_id, face_id FROM old_rows) moved;
    SELECT array_agg(list_id), array_agg(face_id) INTO unlinked_lists, unlinked_faces
    FROM (SELECT list_id, face_id FROM old_rows EXCEPT SELECT list_id, face_id FROM new_rows) moved;
  END IF;
  IF linked_lists IS NULL AND unlinked_lists IS NULL THEN
    RETURN NULL;
  END IF;
  IF linked_faces IS NOT NULL THEN
    PERFORM faces.touch_faces(linked_faces);
  END IF;
  existing := faces.lock_feeds(linked_lists || unlinked_lists);
  PERFORM faces.append_changes(
    existing,
    linked_lists || unlinked_lists,
    linked_faces || unlinked_faces,
    array_fill('link'::text, ARRAY[coalesce(cardinality(linked_lists), 0)])
      || array_fill('unlink'::text, ARRAY[coalesce(cardinality(unlinked_lists), 0)]),
    array_fill(0, ARRAY[coalesce(cardinality(linked_lists), 0)])
      || array_fill(1, ARRAY[coalesce(cardinality(unlinked_lists), 0)]));
  RETURN NULL;
END $$;

CREATE FUNCTION faces.on_descriptor_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Faces whose graph node dies, and faces that had no such descriptor before.
  replaced uuid[]; added uuid[];
  existing uuid[];
  list_ids uuid[]; face_ids uuid[]; ops text[]; removed integer[];
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT array_agg(DISTINCT face_id) INTO added FROM new_rows;
  ELSIF TG_OP = 'DELETE' THEN
    SELECT array_agg(DISTINCT face_id) INTO replaced FROM old_rows;
  ELSE
    SELECT array_agg(DISTINCT face_id) INTO replaced
    FROM (SELECT face_id, descriptor_version, data FROM old_rows
          EXCEPT SELECT face_id, descriptor_version, data FROM new_rows) gone;
    SELECT array_agg(DISTINCT face_id) INTO added
    FROM (SELECT face_id, descriptor_version, data FROM new_rows
          EXCEPT SELECT face_id, descriptor_version, data FROM old_rows) come;
  END IF;
  IF replaced IS NULL AND added IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM 1 FROM faces.face f
  WHERE f.face_id = ANY (replaced || added) AND f.xmin <> pg_current_xact_id()::xid
  ORDER BY f.face_id FOR NO KEY UPDATE;
  -- A face that this transaction has deleted is unlinked by the cascade: one row, not two.
  SELECT array_agg(DISTINCT lf.list_id) INTO list_ids
  FROM faces.list_face lf JOIN faces.face f USING (face_id)
  WHERE lf.face_id = ANY (replaced || added);
  IF list_ids IS NULL THEN
    RETURN NULL;
  END IF;
  existing := faces.lock_feeds(list_ids);
  -- Read again under the locks: a face may have been unlinked meanwhile.
  SELECT array_agg(lf.list_id), array_agg(lf.face_id), array_agg('replace'::text),
         array_agg(CASE WHEN lf.face_id IN (SELECT unnest(replaced)) THEN 1 ELSE 0 END)
  INTO list_ids, face_ids, ops, removed
  FROM faces.list_face lf JOIN faces.face f USING (face_id)
  WHERE lf.face_id = ANY (replaced || added) AND lf.list_id = ANY (existing);
  IF list_ids IS NOT NULL THEN
    SELECT array_agg(DISTINCT list_id ORDER BY list_id) INTO existing FROM unnest(list_ids) AS list_id;
    PERFORM faces.append_changes(existing, list_ids, face_ids, ops, removed);
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION faces.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'TRUNCATE of faces.% is refused: it would bypass the change feed', TG_TABLE_NAME
    USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE.';
END $$;

REVOKE EXECUTE ON FUNCTION faces.lock_feeds(uuid[]), faces.touch_faces(uuid[]),
  faces.insert_changes(uuid[], uuid[], uuid[], text[], integer[]),
  faces.append_changes(uuid[], uuid[], uuid[], text[], integer[]) FROM PUBLIC;

CREATE TRIGGER feed_insert AFTER INSERT ON faces.list_face REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION faces.on_list_face_change();
CREATE TRIGGER feed_update AFTER UPDATE ON faces.list_face REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION faces.on_list_face_change();
CREATE TRIGGER feed_delete AFTER DELETE ON faces.list_face REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION faces.on_list_face_change();
CREATE TRIGGER feed_insert AFTER INSERT ON faces.descriptor REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION faces.on_descriptor_change();
CREATE TRIGGER feed_update AFTER UPDATE ON faces.descriptor REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION faces.on_descriptor_change();
CREATE TRIGGER feed_delete AFTER DELETE ON faces.descriptor REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION faces.on_descriptor_change();

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON faces.list
  FOR EACH STATEMENT EXECUTE FUNCTION faces.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON faces.face
  FOR EACH STATEMENT EXECUTE FUNCTION faces.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON faces.descriptor
  FOR EACH STATEMENT EXECUTE FUNCTION faces.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON faces.list_face
  FOR EACH STATEMENT EXECUTE FUNCTION faces.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON faces.list_change
  FOR EACH STATEMENT EXECUTE FUNCTION faces.refuse_truncate();
