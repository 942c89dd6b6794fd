-- How long transactions were open before they were decided, per producer group, over some days (UTC): median and
-- 99th percentile in microseconds.
-- :from  first day, such as '2026-11-22'
-- :to    last day
WITH took AS (
  SELECT t.grp, t.decided_at - t.prepared_at AS us
  FROM seal s
  CROSS JOIN audit a ON a.event >= s.first_event AND a.event < s.first_event + s.count
  CROSS JOIN tx t ON t.id = a.tx AND t.n = 0
  WHERE s.wall_ms >= 1000 * unixepoch(:from) AND s.wall_ms < 1000 * unixepoch(:to, '+1 day')
    AND a.to_step IN (1, 2)
), ranked AS (
  SELECT grp, us, row_number() OVER (PARTITION BY grp ORDER BY us) AS place, count(*) OVER (PARTITION BY grp) AS decided
  FROM took
)
SELECT g.text AS producer_group,
       r.decided,
       min(r.us) FILTER (WHERE r.place * 100 >= r.decided * 50) AS p50_us,
       min(r.us) FILTER (WHERE r.place * 100 >= r.decided * 99) AS p99_us,
       max(r.us) AS most_us
FROM ranked r
JOIN name g ON g.id = r.grp
GROUP BY r.grp
ORDER BY producer_group;
