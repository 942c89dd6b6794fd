-- The coordinator's tables: transactions, their history, its seals, and the one owner. See ../README.md.

-- Texts that repeat (producer groups, topics, sources of events), kept once.
CREATE TABLE name (
  id   INTEGER PRIMARY KEY,
  text TEXT NOT NULL UNIQUE
) STRICT;

-- 16 random bytes that repeat (processes that send, marker tables), kept once.
CREATE TABLE identity (
  id    INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL UNIQUE CHECK (length(bytes) = 16)
) STRICT;

-- One row for each half message.
CREATE TABLE tx (
  half_pos       INTEGER PRIMARY KEY,           -- position of the half message in the log: its identity for ever
  id             BLOB    NOT NULL CHECK (length(id) = 16),
  n              INTEGER NOT NULL DEFAULT 0,    -- number of the message within its transaction
  grp            INTEGER NOT NULL,              -- name.id of the producer group
  topic          INTEGER NOT NULL,              -- name.id of the topic
  sender         INTEGER,                       -- identity.id of the process that sent it
  marker         INTEGER,                       -- identity.id of the marker table in the producer's database
  status         INTEGER NOT NULL CHECK (status BETWEEN 0 AND 3), -- IN would build a table of its own for every row
  half_off       INTEGER NOT NULL,              -- its number in the half queue
  body_len       INTEGER NOT NULL,              -- bytes
  prepared_at    INTEGER NOT NULL,              -- server time, us
  decided_at     INTEGER,                       -- server time, us
  decision_no    INTEGER,                       -- order of decisions, without gaps
  check_at       INTEGER,                       -- server time of the next check-back, us
  checks         INTEGER NOT NULL DEFAULT 0,    -- check-backs answered with UNKNOWN
  repeats        INTEGER NOT NULL DEFAULT 0,    -- how often the decision was repeated
  contradictions INTEGER NOT NULL DEFAULT 0,    -- how often somebody said the opposite
  CHECK ((status IN (1, 2)) = (decided_at IS NOT NULL)),
  CHECK ((decided_at IS NULL) = (decision_no IS NULL)),
  CHECK ((status = 0) = (check_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX tx_id       ON tx (id, n);
CREATE UNIQUE INDEX tx_decision ON tx (decision_no) WHERE decision_no IS NOT NULL;
-- decision_no is in tx_open so that counting what is open never reads the rows.
CREATE INDEX        tx_open     ON tx (decision_no, grp, check_at) WHERE decision_no IS NULL;
CREATE INDEX        tx_sender   ON tx (sender) WHERE decision_no IS NULL AND sender IS NOT NULL;

CREATE TRIGGER tx_decided_for_ever
BEFORE UPDATE OF half_pos, id, n, status, decided_at, decision_no ON tx WHEN OLD.decision_no IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a decision never changes'); END;

-- Why the final message of a committed transaction could not be published. Empty when all is well.
CREATE TABLE unpublished (
  half_pos INTEGER PRIMARY KEY,
  reason   TEXT NOT NULL
) STRICT;
CREATE TRIGGER unpublished_is_committed
BEFORE INSERT ON unpublished WHEN NOT EXISTS (SELECT 1 FROM tx WHERE half_pos = NEW.half_pos AND status = 1)
BEGIN SELECT RAISE(ABORT, 'only a committed transaction can be unpublished'); END;

-- The history. Rows are added, never changed.
CREATE TABLE audit (
  event     INTEGER PRIMARY KEY,                -- from 1, without gaps
  tx        BLOB    NOT NULL CHECK (length(tx) = 16),
  from_step INTEGER,                            -- NULL: the transaction had no row
  to_step   INTEGER NOT NULL,
  actor     INTEGER NOT NULL,
  at        INTEGER NOT NULL,                   -- server time of the first step in this row, us
  then_at   INTEGER,                            -- server time of the last step, if the row holds two; of the next check-back, if it stays open
  source    INTEGER NOT NULL,                   -- name.id of connection and client
  evidence  TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_tx ON audit (tx);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append only'); END;

-- One row for each batch that was written: a chain of hashes over the history.
CREATE TABLE seal (
  seq         INTEGER PRIMARY KEY,              -- number of the batch
  first_event INTEGER NOT NULL,
  count       INTEGER NOT NULL,
  published   INTEGER NOT NULL,                 -- owner.published after it
  wall_ms     INTEGER NOT NULL,                 -- wall clock of the batch, ms since 1970
  hash        BLOB    NOT NULL CHECK (length(hash) = 32),
  leaves      BLOB    NOT NULL CHECK (length(leaves) = 8 * count)
) STRICT;
CREATE INDEX seal_event ON seal (first_event, seq, wall_ms);
CREATE INDEX seal_wall  ON seal (wall_ms, first_event, count);
CREATE TRIGGER seal_no_update BEFORE UPDATE ON seal BEGIN SELECT RAISE(ABORT, 'seal is append only'); END;
CREATE TRIGGER seal_no_delete BEFORE DELETE ON seal BEGIN SELECT RAISE(ABORT, 'seal is append only'); END;

-- Who may write, and how far it has come. One row.
CREATE TABLE owner (
  one           INTEGER PRIMARY KEY CHECK (one = 1),
  log           BLOB    NOT NULL CHECK (length(log) = 16),   -- the log this database belongs to
  epoch         INTEGER NOT NULL,               -- raised by each writer that takes over
  seq           INTEGER NOT NULL,               -- number of the last batch
  batch         BLOB    NOT NULL CHECK (length(batch) = 16), -- its random id
  watermark     INTEGER NOT NULL,               -- every record of the log before this is reflected here
  published     INTEGER NOT NULL,               -- last decision_no whose record in the log is durable
  last_decision INTEGER NOT NULL,
  next_event    INTEGER NOT NULL,
  head          BLOB    NOT NULL CHECK (length(head) = 32)   -- hash of the last seal
) STRICT;
CREATE TRIGGER owner_no_delete BEFORE DELETE ON owner BEGIN SELECT RAISE(ABORT, 'the owner row stays'); END;

-- For people: transactions with words, hex ids and names.
CREATE VIEW tx_view AS
SELECT t.id      AS tx,
       hex(t.id) AS id,
       g.text    AS producer_group,
       p.text    AS topic,
       CASE t.status WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' ELSE 'parked' END AS state,
       CASE WHEN t.status = 0 THEN 'prepared'
            WHEN t.status = 2 THEN 'rolled_back'
            WHEN t.status = 3 THEN 'parked'
            WHEN u.half_pos IS NOT NULL THEN 'unpublished'
            WHEN t.decision_no <= o.published THEN 'published'
            ELSE 'committed' END AS outcome,
       t.half_pos AS position,
       t.half_off AS queue_offset,
       t.body_len,
       t.prepared_at, t.decided_at, t.decided_at - t.prepared_at AS open_us,
       t.check_at, t.checks, t.decision_no, t.repeats, t.contradictions,
       u.reason AS unpublished_reason,
       hex(s.bytes) AS sender,
       hex(m.bytes) AS marker
FROM tx t
LEFT JOIN name g ON g.id = t.grp
LEFT JOIN name p ON p.id = t.topic
LEFT JOIN identity s ON s.id = t.sender
LEFT JOIN identity m ON m.id = t.marker
LEFT JOIN unpublished u ON u.half_pos = t.half_pos
LEFT JOIN owner o ON o.one = 1;

-- For people: the history with words, and with the wall clock of the batch that wrote each row.
CREATE VIEW history AS
SELECT a.event,
       a.tx,
       hex(a.tx) AS id,
       CASE a.from_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' END AS from_step,
       CASE a.to_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' ELSE 'step ' || a.to_step END AS step,
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
