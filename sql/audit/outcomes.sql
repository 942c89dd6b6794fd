-- What became of the transactions that were decided on some days (UTC), per day and producer group.
-- :from  first day, such as '2026-11-22'
-- :to    last day
-- The days bound how much history is read.
SELECT date(s.wall_ms / 1000, 'unixepoch') AS day,
       g.text AS producer_group,
       count(*) FILTER (WHERE t.status = 1) AS committed,
       count(*) FILTER (WHERE t.status = 1 AND t.decision_no <= o.published AND u.half_pos IS NULL) AS published,
       count(*) FILTER (WHERE u.half_pos IS NOT NULL) AS unpublished,
       count(*) FILTER (WHERE t.status = 2) AS rolled_back
FROM seal s
CROSS JOIN audit a ON a.event >= s.first_event AND a.event < s.first_event + s.count
CROSS JOIN tx t ON t.id = a.tx AND t.n = 0
JOIN name g ON g.id = t.grp
JOIN owner o ON o.one = 1
LEFT JOIN unpublished u ON u.half_pos = t.half_pos
WHERE s.wall_ms >= 1000 * unixepoch(:from) AND s.wall_ms < 1000 * unixepoch(:to, '+1 day')
  AND a.to_step IN (1, 2)
GROUP BY day, t.grp
ORDER BY day, producer_group;
