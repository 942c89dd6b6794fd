-- Who said the opposite of a decision on some days (UTC), and what stands. Newest last.
-- :from  first day, such as '2026-11-22'
-- :to    last day
-- Only the first few of a transaction are recorded one by one; "contradictions" counts all.
SELECT strftime('%Y-%m-%d %H:%M:%f', s.wall_ms / 1000.0, 'unixepoch') AS recorded_at,
       hex(a.tx) AS id,
       t.producer_group,
       t.state AS stands,
       CASE a.actor WHEN 1 THEN 'producer' WHEN 2 THEN 'check-back' WHEN 3 THEN 'marker' WHEN 4 THEN 'operator'
            WHEN 5 THEN 'recovery' WHEN 6 THEN 'operator (forced)' END AS said_by,
       n.text AS source,
       a.evidence,
       t.contradictions
FROM seal s
CROSS JOIN audit a ON a.event >= s.first_event AND a.event < s.first_event + s.count
LEFT JOIN tx_view t ON t.tx = a.tx
LEFT JOIN name n ON n.id = a.source
WHERE s.wall_ms >= 1000 * unixepoch(:from) AND s.wall_ms < 1000 * unixepoch(:to, '+1 day')
  AND a.to_step = 5
ORDER BY a.event;
