-- How far the history is forgotten: decided transactions whose half messages are deleted in the log, and the events of those, may
-- be removed up to here, and nothing behind it. One row; it only rises, and an event of the history says so first.
CREATE TABLE forgotten (
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  event     INTEGER NOT NULL,                   -- events before this one
  decisions INTEGER NOT NULL                    -- decisions up to this one; all of them were told by events before it
) STRICT;
INSERT INTO forgotten (one, event, decisions) VALUES (1, 1, 0);
CREATE TRIGGER forgotten_forward
BEFORE UPDATE ON forgotten WHEN NEW.one <> 1 OR NEW.event < OLD.event OR NEW.decisions < OLD.decisions
BEGIN SELECT RAISE(ABORT, 'what is forgotten stays forgotten'); END;
CREATE TRIGGER forgotten_no_delete BEFORE DELETE ON forgotten
BEGIN SELECT RAISE(ABORT, 'what is forgotten stays forgotten'); END;

DROP TRIGGER audit_no_delete;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit WHEN OLD.event >= (SELECT event FROM forgotten)
BEGIN SELECT RAISE(ABORT, 'audit is append only'); END;
CREATE TRIGGER tx_no_delete BEFORE DELETE ON tx
WHEN OLD.decision_no IS NULL OR OLD.decision_no > (SELECT decisions FROM forgotten)
BEGIN SELECT RAISE(ABORT, 'a transaction stays until it is forgotten'); END;

DROP VIEW history;
CREATE VIEW history AS
SELECT a.event,
       a.tx,
       hex(a.tx) AS id,
       CASE a.from_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' WHEN 10 THEN 'forgotten' END AS from_step,
       CASE a.to_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' WHEN 10 THEN 'forgotten' ELSE 'step ' || a.to_step END AS step,
       CASE a.actor WHEN 1 THEN 'producer' WHEN 2 THEN 'check-back' WHEN 3 THEN 'marker' WHEN 4 THEN 'operator'
            WHEN 5 THEN 'recovery' WHEN 6 THEN 'operator (forced)' ELSE 'actor ' || a.actor END AS actor,
       a.at, a.then_at,
       (SELECT s.wall_ms FROM seal s WHERE s.first_event <= a.event ORDER BY s.first_event DESC, s.seq DESC LIMIT 1) AS wall_ms,
       strftime('%Y-%m-%d %H:%M:%f',
         (SELECT s.wall_ms FROM seal s WHERE s.first_event <= a.event ORDER BY s.first_event DESC, s.seq DESC LIMIT 1) / 1000.0,
         'unixepoch') AS recorded_at,
       n.text AS source,
       a.evidence
FROM audit a
LEFT JOIN name n ON n.id = a.source;
