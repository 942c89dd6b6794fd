//! The SQL texts of the writer.

/// A whole batch, in the order of [`super::encode::batch`]. Every part hangs on the owner row `o`: without it nothing is
/// written. A part that reads what another has written hangs on that, too, since they have no other order.
pub(super) const BATCH: &str = "\
WITH o AS (
  UPDATE halfmoon.owner SET seq = $56::bigint, batch = $4::uuid, watermark = $5::bigint, published = $6::bigint,
    last_decision = $7::bigint, next_event = $8::bigint, head = $9::bytea, fingerprint = $59::bigint
  WHERE one = 1 AND epoch = $1::bigint AND link = $2::bigint AND seq = $3::bigint RETURNING seq
), texts AS (
  INSERT INTO halfmoon.name (id, text) SELECT u.* FROM o, unnest($10::int[], $11::text[]) AS u
), identities AS (
  INSERT INTO halfmoon.identity (id, bytes) SELECT u.* FROM o, unnest($12::int[], $13::uuid[]) AS u
), t AS (
  INSERT INTO halfmoon.tx (half_pos, half_off, id, prepared_at, decided_at, decision_no, check_at, body_len, checks, repeats,
    contradictions, grp, topic, sender, marker, status)
  SELECT u.* FROM o, unnest($14::bigint[], $15::bigint[], $16::uuid[], $17::bigint[], $18::bigint[], $19::bigint[],
    $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::int[], $26::int[], $27::int[], $28::int[],
    $29::smallint[]) AS u
  RETURNING 1
), m AS (
  UPDATE halfmoon.tx AS t SET status = coalesce(c.status, t.status),
    decided_at = CASE WHEN c.status IS NULL THEN t.decided_at ELSE c.decided_at END,
    decision_no = CASE WHEN c.status IS NULL THEN t.decision_no ELSE c.decision_no END,
    check_at = CASE WHEN c.status IS NULL THEN t.check_at ELSE c.check_at END,
    checks = coalesce(c.checks, t.checks),
    repeats = least(t.repeats + c.repeats, 4294967295),
    contradictions = least(t.contradictions + c.contradictions, 4294967295)
  FROM o, unnest($30::bigint[], $31::smallint[], $32::bigint[], $33::bigint[], $34::bigint[], $35::bigint[], $36::bigint[],
    $37::bigint[]) AS c (half_pos, status, decided_at, decision_no, check_at, checks, repeats, contradictions)
  WHERE t.half_pos = c.half_pos AND (c.status IS NULL OR t.status = 0 OR (t.status = 3 AND c.status IN (1, 2)))
  RETURNING 1
), refused AS (
  INSERT INTO halfmoon.unpublished (half_pos, reason) SELECT u.* FROM o, unnest($38::bigint[], $39::text[]) AS u
  WHERE (SELECT count(*) FROM t) + (SELECT count(*) FROM m) >= 0
  ON CONFLICT (half_pos) DO UPDATE SET reason = excluded.reason
), published AS (
  DELETE FROM halfmoon.unpublished AS n USING o, unnest($40::bigint[]) AS u (half_pos) WHERE n.half_pos = u.half_pos RETURNING 1
), moved AS (
  INSERT INTO halfmoon.moved (half_pos, position) SELECT u.* FROM o, unnest($57::bigint[], $58::bigint[]) AS u
  WHERE (SELECT count(*) FROM t) + (SELECT count(*) FROM m) >= 0
  ON CONFLICT (half_pos) DO UPDATE SET position = excluded.position
), events AS (
  INSERT INTO halfmoon.audit (event, at, then_at, tx, source, from_step, to_step, actor, evidence, fingerprint)
  SELECT u.* FROM o, unnest($41::bigint[], $42::bigint[], $43::bigint[], $44::uuid[], $45::int[], $46::smallint[],
    $47::smallint[], $48::smallint[], $49::text[], $60::bigint[]) AS u
), sealed AS (
  INSERT INTO halfmoon.seal (seq, first_event, count, published, wall_ms, hash, leaves)
  SELECT o.seq, $50::bigint, $51::bigint, $6::bigint, $52::bigint, $9::bytea, $53::bytea FROM o
)
SELECT EXISTS (SELECT 1 FROM o) AND halfmoon.changed((SELECT count(*) FROM m), $54::bigint * (SELECT count(*) FROM o))
  AND halfmoon.changed((SELECT count(*) FROM published), $55::bigint * (SELECT count(*) FROM o))";

/// Says how far history is forgotten: epoch, link, seq, event, decisions.
pub(super) const FORGOTTEN: &str = "UPDATE halfmoon.forgotten AS f \
    SET event = greatest(f.event, $4::bigint), decisions = greatest(f.decisions, $5::bigint) FROM halfmoon.owner AS o \
    WHERE o.one = 1 AND o.epoch = $1::bigint AND o.link = $2::bigint AND o.seq = $3::bigint";

/// Removes transactions that are forgotten, with their events: epoch, link, seq, where the log begins, limit.
pub(super) const FORGET: &str = "\
WITH o AS (
  SELECT 1 FROM halfmoon.owner WHERE one = 1 AND epoch = $1::bigint AND link = $2::bigint AND seq = $3::bigint FOR UPDATE
), f AS (
  SELECT f.event, f.decisions FROM o, halfmoon.forgotten AS f
), rows AS (
  DELETE FROM halfmoon.tx WHERE half_pos IN (SELECT t.half_pos FROM f JOIN halfmoon.tx AS t ON t.decision_no <= f.decisions
    WHERE t.half_pos < $4::bigint
    AND NOT EXISTS (SELECT 1 FROM halfmoon.unpublished AS u WHERE u.half_pos = t.half_pos)
    AND NOT EXISTS (SELECT 1 FROM halfmoon.audit AS a WHERE a.tx = t.id AND a.event >= f.event)
    ORDER BY t.decision_no LIMIT $5::bigint) RETURNING half_pos, id
), moves AS (
  DELETE FROM halfmoon.moved AS v USING rows WHERE v.half_pos = rows.half_pos RETURNING 1
), events AS (
  DELETE FROM halfmoon.audit AS a USING rows WHERE a.tx = rows.id RETURNING 1
), told AS (
  DELETE FROM halfmoon.audit AS a USING f WHERE a.tx = '00000000-0000-0000-0000-000000000000' AND a.event < f.event RETURNING 1
)
SELECT (SELECT count(*) FROM rows) + (SELECT count(*) FROM moves) + (SELECT count(*) FROM events) + (SELECT count(*) FROM told)
FROM o";

/// The owner row's columns, in the order of [`super::rows::owner`].
macro_rules! owner_columns {
    () => {
        "log, epoch, seq, batch, watermark, published, last_decision, next_event, head, link, fingerprint"
    };
}

/// The owner row, for a writer that takes over, or for anyone.
pub(super) const OWNER: &str = concat!(
    "SELECT ",
    owner_columns!(),
    " FROM halfmoon.owner WHERE one = 1"
);

/// The same, kept from changing until the transaction ends.
pub(super) const OWNER_LOCKED: &str = concat!(
    "SELECT ",
    owner_columns!(),
    " FROM halfmoon.owner WHERE one = 1 FOR UPDATE"
);

/// Makes the owner row of a store that belongs to no log yet.
pub(super) const PAIR: &str = "INSERT INTO halfmoon.owner \
(one, log, epoch, link, seq, batch, watermark, published, last_decision, next_event, head) \
VALUES (1, $1, 0, 0, 0, '00000000-0000-0000-0000-000000000000', 0, 0, 0, 1, decode(repeat('00', 32), 'hex')) \
ON CONFLICT DO NOTHING";

/// Takes the store over from older writers, or from an older connection of the same one: epoch, link, fingerprint.
pub(super) const RAISE: &str =
    "UPDATE halfmoon.owner SET epoch = $1, link = $2, fingerprint = $3 WHERE one = 1";
