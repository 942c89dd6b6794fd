-- How much is open in each producer group, and when the oldest of it was recorded (UTC). The longest waiting group first.
SELECT g.text AS producer_group,
       open.prepared,
       open.parked,
       upper(replace(t.id::text, '-', '')) AS oldest,
       (SELECT to_char(to_timestamp(s.wall_ms / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS') FROM halfmoon.seal s
        WHERE s.first_event <= (SELECT min(a.event) FROM halfmoon.audit a WHERE a.tx = t.id)
        ORDER BY s.first_event DESC, s.seq DESC LIMIT 1) AS oldest_recorded_at
FROM (SELECT grp, count(check_at) AS prepared, count(*) - count(check_at) AS parked, min(half_pos) AS oldest
      FROM halfmoon.tx WHERE decision_no IS NULL GROUP BY grp) AS open
JOIN halfmoon.tx t ON t.half_pos = open.oldest
JOIN halfmoon.name g ON g.id = open.grp
ORDER BY t.half_pos;
