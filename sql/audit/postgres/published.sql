-- Committed versus published: how far publishing is behind the decisions, and what it could not publish. One row.
-- "waiting" is normal for moments; "unpublished" needs a person: list them with
--   SELECT id, topic, unpublished_reason FROM halfmoon.tx_view WHERE outcome = 'unpublished';
SELECT o.last_decision,
       o.published,
       (SELECT count(*) FROM halfmoon.tx t WHERE t.decision_no > o.published AND t.status = 1) AS waiting,
       (SELECT count(*) FROM halfmoon.unpublished) AS unpublished
FROM halfmoon.owner o
WHERE o.one = 1;
