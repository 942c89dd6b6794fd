-- How far the history is forgotten: decided transactions whose half messages are deleted in the log, and the events of those, may
-- be removed up to here, and nothing behind it. One row; it only rises, and an event of the history says so first.
CREATE TABLE halfmoon.forgotten (
  one       smallint PRIMARY KEY CHECK (one = 1),
  event     bigint NOT NULL,                    -- events before this one
  decisions bigint NOT NULL                     -- decisions up to this one; all of them were told by events before it
);
INSERT INTO halfmoon.forgotten (one, event, decisions) VALUES (1, 1, 0);
CREATE TRIGGER forgotten_forward BEFORE UPDATE ON halfmoon.forgotten
FOR EACH ROW WHEN (NEW.one <> 1 OR NEW.event < OLD.event OR NEW.decisions < OLD.decisions)
EXECUTE FUNCTION halfmoon.refuse('what is forgotten stays forgotten');
CREATE TRIGGER forgotten_no_delete BEFORE DELETE ON halfmoon.forgotten
FOR EACH ROW EXECUTE FUNCTION halfmoon.refuse('what is forgotten stays forgotten');
CREATE TRIGGER forgotten_no_truncate BEFORE TRUNCATE ON halfmoon.forgotten
FOR EACH STATEMENT EXECUTE FUNCTION halfmoon.refuse('what is forgotten stays forgotten');

-- A condition of a trigger cannot look into another table: these functions do.
CREATE FUNCTION halfmoon.keep_events() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  IF OLD.event >= (SELECT f.event FROM halfmoon.forgotten AS f) THEN
    RAISE EXCEPTION 'audit is append only' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE FUNCTION halfmoon.keep_transactions() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  IF OLD.decision_no IS NULL OR OLD.decision_no > (SELECT f.decisions FROM halfmoon.forgotten AS f) THEN
    RAISE EXCEPTION 'a transaction stays until it is forgotten' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN OLD;
END $$;

DROP TRIGGER audit_append_only ON halfmoon.audit;
CREATE TRIGGER audit_append_only BEFORE UPDATE ON halfmoon.audit
FOR EACH ROW EXECUTE FUNCTION halfmoon.refuse('audit is append only');
CREATE TRIGGER audit_kept BEFORE DELETE ON halfmoon.audit
FOR EACH ROW EXECUTE FUNCTION halfmoon.keep_events();
CREATE TRIGGER tx_kept BEFORE DELETE ON halfmoon.tx
FOR EACH ROW EXECUTE FUNCTION halfmoon.keep_transactions();

CREATE OR REPLACE VIEW halfmoon.history AS
SELECT a.event,
       a.tx,
       upper(replace(a.tx::text, '-', '')) AS id,
       CASE a.from_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' WHEN 10 THEN 'forgotten' END AS from_step,
       CASE a.to_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' WHEN 10 THEN 'forgotten' ELSE 'step ' || a.to_step END AS step,
       CASE a.actor WHEN 1 THEN 'producer' WHEN 2 THEN 'check-back' WHEN 3 THEN 'marker' WHEN 4 THEN 'operator'
            WHEN 5 THEN 'recovery' WHEN 6 THEN 'operator (forced)' ELSE 'actor ' || a.actor END AS actor,
       a.at, a.then_at,
       w.wall_ms,
       to_char(to_timestamp(w.wall_ms / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS') AS recorded_at,
       n.text AS source,
       a.evidence
FROM halfmoon.audit a
LEFT JOIN halfmoon.name n ON n.id = a.source
LEFT JOIN LATERAL (SELECT s.wall_ms FROM halfmoon.seal s WHERE s.first_event <= a.event
                   ORDER BY s.first_event DESC, s.seq DESC LIMIT 1) w ON true;
