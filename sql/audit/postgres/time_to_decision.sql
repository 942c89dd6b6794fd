-- How long transactions were open before they were decided, per producer group, over some days (UTC): median and
-- 99th percentile in microseconds.
-- :'from'  first day, such as 2026-11-22
-- :'to'    last day
SELECT g.text AS producer_group,
       count(*) AS decided,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY t.decided_at - t.prepared_at) AS p50_us,
       percentile_disc(0.99) WITHIN GROUP (ORDER BY t.decided_at - t.prepared_at) AS p99_us,
       max(t.decided_at - t.prepared_at) AS most_us
FROM halfmoon.seal s
JOIN halfmoon.audit a ON a.event >= s.first_event AND a.event < s.first_event + s.count
JOIN halfmoon.tx t ON t.id = a.tx AND t.n = 0
JOIN halfmoon.name g ON g.id = t.grp
WHERE s.wall_ms >= 1000 * extract(epoch FROM :'from'::date)::bigint
  AND s.wall_ms < 1000 * extract(epoch FROM :'to'::date + 1)::bigint
  AND a.to_step IN (1, 2)
GROUP BY g.text
ORDER BY producer_group;
