-- The numbers of the books, in one row.
SELECT
    (SELECT count(*) FROM ends)                                                  AS orders,
    (SELECT count(*) FROM ends WHERE how = 'accepted')                           AS accepted,
    (SELECT count(*) FROM ends WHERE how = 'cancelled for stock')                AS no_stock,
    (SELECT count(*) FROM ends WHERE how = 'cancelled for payment')              AS not_paid,
    (SELECT count(*) FROM ends WHERE how = 'rejected')                           AS rejected,
    (SELECT count(*) FROM decisions d JOIN business b ON b.id = d.id
      WHERE b.what = 'orders/placed' AND d.actor = 'marker')                     AS placed_by_check_back,
    (SELECT count(*) FROM transactions)                                          AS transactions,
    (SELECT count(*) FROM transactions WHERE state = 'committed')                AS committed,
    (SELECT count(*) FROM transactions WHERE outcome = 'published')              AS published,
    (SELECT count(*) FROM transactions WHERE state = 'rolled_back')              AS rolled_back,
    (SELECT count(*) FROM decisions WHERE actor = 'producer')                    AS by_producer,
    (SELECT count(*) FROM decisions WHERE actor = 'marker')                      AS by_check_back,
    (SELECT count(*) FROM markers WHERE value = 0)                               AS tombstones,
    (SELECT CAST(coalesce(sum(amount_cents), 0) AS BIGINT) FROM paid WHERE status = 'captured') AS captured_cents,
    (SELECT CAST(coalesce(sum(quantity), 0) AS BIGINT) FROM all_deliveries)      AS delivered,
    (SELECT CAST(sum(on_hand) AS BIGINT) FROM all_products)                      AS on_hand,
    (SELECT count(*) FROM (SELECT DISTINCT shard, after_answers FROM all_deliveries) d) AS deliveries;
