-- Transactions that nobody has decided yet, oldest first.
-- :limit  at most so many
SELECT id, producer_group, topic, state, checks, check_at, position, queue_offset
FROM halfmoon.tx_view
WHERE decision_no IS NULL AND state = 'prepared'
ORDER BY position
LIMIT :limit;
