-- The history of one transaction, oldest first: why its message was, or was not, published.
-- :'id'  32 hex digits
SELECT h.recorded_at, h.from_step, h.step, h.actor, h.at - t.prepared_at AS after_us,
       h.then_at - t.prepared_at AS then_after_us, h.source, h.evidence, t.outcome, t.unpublished_reason
FROM halfmoon.history h
LEFT JOIN halfmoon.tx_view t ON t.tx = h.tx
WHERE h.tx = :'id'::uuid
ORDER BY h.event;
