-- The coordinator's tables: transactions, their history, its seals, and the one owner. See ../README.md.
-- Everything is in a schema of its own, which the coordinator creates, and is named with it: no search path matters.

-- Texts that repeat (producer groups, topics, sources of events), kept once. U+0000, which a text cannot hold here, is kept as
-- U+2400 and '0', and U+2400 itself as U+2400 and '1'; the same in the other texts.
CREATE TABLE halfmoon.name (
  id   integer PRIMARY KEY,
  text text COLLATE "C" NOT NULL UNIQUE
);

-- 16 random bytes that repeat (processes that send, marker tables), kept once.
CREATE TABLE halfmoon.identity (
  id    integer PRIMARY KEY,
  bytes uuid NOT NULL UNIQUE
);

-- One row for each half message.
CREATE TABLE halfmoon.tx (
  half_pos       bigint   NOT NULL,             -- position of the half message in the log: its identity for ever
  half_off       bigint   NOT NULL,             -- its number in the half queue
  id             uuid     NOT NULL,
  prepared_at    bigint   NOT NULL,             -- server time, us
  decided_at     bigint,                        -- server time, us
  decision_no    bigint,                        -- order of decisions, without gaps
  check_at       bigint,                        -- server time of the next check-back, us
  body_len       bigint   NOT NULL,             -- bytes
  checks         bigint   NOT NULL DEFAULT 0,   -- check-backs answered with UNKNOWN
  repeats        bigint   NOT NULL DEFAULT 0,   -- how often the decision was repeated
  contradictions bigint   NOT NULL DEFAULT 0,   -- how often somebody said the opposite
  grp            integer  NOT NULL,             -- name.id of the producer group
  topic          integer  NOT NULL,             -- name.id of the topic
  sender         integer,                       -- identity.id of the process that sent it
  marker         integer,                       -- identity.id of the marker table in the producer's database
  n              smallint NOT NULL DEFAULT 0,   -- number of the message within its transaction
  status         smallint NOT NULL CHECK (status IN (0, 1, 2, 3)),
  CONSTRAINT tx_pos PRIMARY KEY (half_pos),
  CONSTRAINT tx_id  UNIQUE (id, n),
  CHECK ((status IN (1, 2)) = (decided_at IS NOT NULL)),
  CHECK ((status IN (1, 2)) = (decision_no IS NOT NULL)),
  CHECK ((status = 0) = (check_at IS NOT NULL))
);
CREATE UNIQUE INDEX tx_decision ON halfmoon.tx (decision_no) WHERE decision_no IS NOT NULL;
CREATE INDEX        tx_open     ON halfmoon.tx (grp, check_at, half_pos) WHERE decision_no IS NULL;
CREATE INDEX        tx_sender   ON halfmoon.tx (sender, half_pos) WHERE decision_no IS NULL AND sender IS NOT NULL;

-- Raises what its trigger says.
CREATE FUNCTION halfmoon.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END $$;

CREATE TRIGGER tx_decided_for_ever
BEFORE UPDATE OF half_pos, id, n, status, decided_at, decision_no ON halfmoon.tx
FOR EACH ROW WHEN (OLD.decision_no IS NOT NULL
  AND (OLD.half_pos, OLD.id, OLD.n, OLD.status, OLD.decided_at, OLD.decision_no)
      IS DISTINCT FROM (NEW.half_pos, NEW.id, NEW.n, NEW.status, NEW.decided_at, NEW.decision_no))
EXECUTE FUNCTION halfmoon.refuse('a decision never changes');
CREATE TRIGGER tx_no_truncate BEFORE TRUNCATE ON halfmoon.tx
FOR EACH STATEMENT EXECUTE FUNCTION halfmoon.refuse('a decision never changes');

-- Why the final message of a committed transaction could not be published. Empty when all is well.
CREATE TABLE halfmoon.unpublished (
  half_pos bigint PRIMARY KEY,
  reason   text NOT NULL
);
CREATE FUNCTION halfmoon.unpublished_is_committed() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM halfmoon.tx WHERE half_pos = NEW.half_pos AND status = 1) THEN
    RAISE EXCEPTION 'only a committed transaction can be unpublished' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER unpublished_is_committed BEFORE INSERT ON halfmoon.unpublished
FOR EACH ROW EXECUTE FUNCTION halfmoon.unpublished_is_committed();

-- The history. Rows are added, never changed.
CREATE TABLE halfmoon.audit (
  event     bigint   NOT NULL PRIMARY KEY,      -- from 1, without gaps
  at        bigint   NOT NULL,                  -- server time of the first step in this row, us
  then_at   bigint,                             -- server time of the last step, if the row holds two; of the next check-back, if it stays open
  tx        uuid     NOT NULL,
  source    integer  NOT NULL,                  -- name.id of connection and client
  from_step smallint,                           -- NULL: the transaction had no row
  to_step   smallint NOT NULL,
  actor     smallint NOT NULL,
  evidence  text     NOT NULL
);
CREATE INDEX audit_tx ON halfmoon.audit (tx);
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON halfmoon.audit
FOR EACH ROW EXECUTE FUNCTION halfmoon.refuse('audit is append only');
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON halfmoon.audit
FOR EACH STATEMENT EXECUTE FUNCTION halfmoon.refuse('audit is append only');

-- One row for each batch that was written: a chain of hashes over the history.
CREATE TABLE halfmoon.seal (
  seq         bigint NOT NULL PRIMARY KEY,      -- number of the batch
  first_event bigint NOT NULL,
  count       bigint NOT NULL,
  published   bigint NOT NULL,                  -- owner.published after it
  wall_ms     bigint NOT NULL,                  -- wall clock of the batch, ms since 1970
  hash        bytea  NOT NULL CHECK (length(hash) = 32),
  leaves      bytea  NOT NULL CHECK (length(leaves) = 8 * count)
);
CREATE INDEX seal_event ON halfmoon.seal (first_event, seq, wall_ms);
CREATE INDEX seal_wall  ON halfmoon.seal (wall_ms, first_event, count);
CREATE TRIGGER seal_append_only BEFORE UPDATE OR DELETE ON halfmoon.seal
FOR EACH ROW EXECUTE FUNCTION halfmoon.refuse('seal is append only');
CREATE TRIGGER seal_no_truncate BEFORE TRUNCATE ON halfmoon.seal
FOR EACH STATEMENT EXECUTE FUNCTION halfmoon.refuse('seal is append only');

-- Who may write, and how far it has come. One row, written by every batch: the room left in its page keeps that cheap.
CREATE TABLE halfmoon.owner (
  one           smallint PRIMARY KEY CHECK (one = 1),
  log           uuid   NOT NULL,                -- the log this database belongs to
  epoch         bigint NOT NULL,                -- raised by each writer that takes over
  link          bigint NOT NULL,                -- raised by each connection of a writer: what an older one sent counts no more
  seq           bigint NOT NULL,                -- number of the last batch
  batch         uuid   NOT NULL,                -- its random id
  watermark     bigint NOT NULL,                -- every record of the log before this is reflected here
  published     bigint NOT NULL,                -- last decision_no whose record in the log is durable
  last_decision bigint NOT NULL,
  next_event    bigint NOT NULL,
  head          bytea  NOT NULL CHECK (length(head) = 32)    -- hash of the last seal
) WITH (fillfactor = 10);
CREATE TRIGGER owner_no_delete BEFORE DELETE ON halfmoon.owner
FOR EACH ROW EXECUTE FUNCTION halfmoon.refuse('the owner row stays');
CREATE TRIGGER owner_no_truncate BEFORE TRUNCATE ON halfmoon.owner
FOR EACH STATEMENT EXECUTE FUNCTION halfmoon.refuse('the owner row stays');

-- Ends a batch that did not change as many rows as it was to.
CREATE FUNCTION halfmoon.changed(these bigint, wanted bigint) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN
  IF these IS DISTINCT FROM wanted THEN
    RAISE EXCEPTION 'a row that it changes is missing, or decided already' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN true;
END $$;

-- For people: transactions with words, hex ids and names.
CREATE VIEW halfmoon.tx_view AS
SELECT t.id AS tx,
       upper(replace(t.id::text, '-', '')) AS id,
       g.text AS producer_group,
       p.text AS topic,
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
       upper(replace(s.bytes::text, '-', '')) AS sender,
       upper(replace(m.bytes::text, '-', '')) AS marker
FROM halfmoon.tx t
LEFT JOIN halfmoon.name g ON g.id = t.grp
LEFT JOIN halfmoon.name p ON p.id = t.topic
LEFT JOIN halfmoon.identity s ON s.id = t.sender
LEFT JOIN halfmoon.identity m ON m.id = t.marker
LEFT JOIN halfmoon.unpublished u ON u.half_pos = t.half_pos
LEFT JOIN halfmoon.owner o ON o.one = 1;

-- For people: the history with words, and with the wall clock of the batch that wrote each row.
CREATE VIEW halfmoon.history AS
SELECT a.event,
       a.tx,
       upper(replace(a.tx::text, '-', '')) AS id,
       CASE a.from_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' END AS from_step,
       CASE a.to_step WHEN 0 THEN 'prepared' WHEN 1 THEN 'committed' WHEN 2 THEN 'rolled_back' WHEN 3 THEN 'parked'
            WHEN 4 THEN 'unknown' WHEN 5 THEN 'refused' WHEN 6 THEN 'unpublished' WHEN 7 THEN 'published'
            WHEN 8 THEN 'asked_again' WHEN 9 THEN 'repeated' ELSE 'step ' || a.to_step END AS step,
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
