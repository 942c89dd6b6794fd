-- Who said the opposite of a decision on some days (UTC), and what stands. Newest last.
-- :'from'  first day, such as 2026-11-22
-- :'to'    last day
-- Only the first few of a transaction are recorded one by one; "contradictions" counts all.
SELECT to_char(to_timestamp(s.wall_ms / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS') AS recorded_at,
       upper(replace(a.tx::text, '-', '')) AS id,
       t.producer_group,
       t.state AS stands,
       CASE a.actor WHEN 1 THEN 'producer' WHEN 2 THEN 'check-back' WHEN 3 THEN 'marker' WHEN 4 THEN 'operator'
            WHEN 5 THEN 'recovery' WHEN 6 THEN 'operator (forced)' END AS said_by,
       n.text AS source,
       a.evidence,
       t.contradictions
FROM halfmoon.seal s
JOIN halfmoon.audit a ON a.event >= s.first_event AND a.event < s.first_event + s.count
LEFT JOIN halfmoon.tx_view t ON t.tx = a.tx
LEFT JOIN halfmoon.name n ON n.id = a.source
WHERE s.wall_ms >= 1000 * extract(epoch FROM :'from'::date)::bigint
  AND s.wall_ms < 1000 * extract(epoch FROM :'to'::date + 1)::bigint
  AND a.to_step = 5
ORDER BY a.event;
