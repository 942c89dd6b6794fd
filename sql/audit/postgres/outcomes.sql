-- What became of the transactions that were decided on some days (UTC), per day and producer group.
-- :'from'  first day, such as 2026-11-22
-- :'to'    last day
-- The days bound how much history is read.
SELECT to_char(to_timestamp(s.wall_ms / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
       g.text AS producer_group,
       count(*) FILTER (WHERE t.status = 1) AS committed,
       count(*) FILTER (WHERE t.status = 1 AND t.decision_no <= o.published AND u.half_pos IS NULL) AS published,
       count(*) FILTER (WHERE u.half_pos IS NOT NULL) AS unpublished,
       count(*) FILTER (WHERE t.status = 2) AS rolled_back
FROM halfmoon.seal s
JOIN halfmoon.audit a ON a.event >= s.first_event AND a.event < s.first_event + s.count
JOIN halfmoon.tx t ON t.id = a.tx AND t.n = 0
JOIN halfmoon.name g ON g.id = t.grp
JOIN halfmoon.owner o ON o.one = 1
LEFT JOIN halfmoon.unpublished u ON u.half_pos = t.half_pos
WHERE s.wall_ms >= 1000 * extract(epoch FROM :'from'::date)::bigint
  AND s.wall_ms < 1000 * extract(epoch FROM :'to'::date + 1)::bigint
  AND a.to_step IN (1, 2)
GROUP BY day, g.text
ORDER BY day, producer_group;
