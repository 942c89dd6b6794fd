-- Transactions whose check budget is used up: each waits for its producer or for a person. Oldest first.
-- :limit  at most so many
SELECT id, producer_group, topic, checks, position, queue_offset
FROM halfmoon.tx_view
WHERE decision_no IS NULL AND state = 'parked'
ORDER BY position
LIMIT :limit;
