-- What must be true of the books. The line above each statement says it; the statement finds what contradicts it, as
-- one column of text for people. No rows: it holds.

-- check: every order that was to be placed has exactly one end, in the database of its customer
SELECT 'order ' || a.order_id || ' has ' || count(e.order_id) || ' ends: ' || coalesce(string_agg(e.how || ' in orders_' || e.shard, ', '), 'none')
FROM asked a LEFT JOIN ends e ON e.order_id = a.order_id
GROUP BY a.order_id HAVING count(e.order_id) <> 1 OR max(e.shard) <> a.shard LIMIT 5;

-- check: no order is left open
SELECT 'order ' || order_id || ' is ' || how FROM ends
WHERE how NOT IN ('accepted', 'cancelled for stock', 'cancelled for payment', 'rejected') LIMIT 5;

-- check: an order is rejected exactly when the shop's rule says so
SELECT 'order ' || a.order_id || ' over ' || a.goods_cents || ' cents is ' || e.how
FROM asked a JOIN ends e ON e.order_id = a.order_id WHERE (e.how = 'rejected') = a.is_taken LIMIT 5;

-- check: what was placed is what was ordered, to the cent
SELECT 'order ' || a.order_id || ' costs ' || (o.goods_cents + o.freight_cents) || ' instead of ' || a.amount_cents
FROM asked a JOIN all_orders o ON o.order_id = a.order_id
WHERE o.goods_cents + o.freight_cents <> a.amount_cents OR o.goods_cents <> a.goods_cents LIMIT 5;

-- check: accepted orders are reserved and captured, all others end with what stock and payment said
SELECT 'order ' || e.order_id || ' is ' || e.how || ', its stock ' || coalesce(r.status, 'never asked') || ', its payment ' || coalesce(p.status, 'never asked')
FROM ends e LEFT JOIN reserved r ON r.order_id = e.order_id LEFT JOIN paid p ON p.order_id = e.order_id
WHERE (e.how, coalesce(r.status, '-'), coalesce(p.status, '-')) NOT IN (VALUES
    ('accepted', 'reserved', 'captured'), ('cancelled for stock', 'refused', '-'),
    ('cancelled for payment', 'released', 'refused'), ('rejected', '-', '-')) LIMIT 5;

-- check: nothing is reserved or paid for an order that is not there
SELECT 'order ' || order_id || ' has an answer and is in no database'
FROM (SELECT order_id FROM reserved UNION ALL SELECT order_id FROM paid) answered
WHERE order_id NOT IN (SELECT order_id FROM ends) LIMIT 5;

-- check: an order is paid for once, and its amount
SELECT 'order ' || p.order_id || ' has ' || count(*) || ' payments over ' || sum(p.amount_cents) || ' cents'
FROM paid p JOIN all_orders o ON o.order_id = p.order_id
GROUP BY p.order_id HAVING count(*) <> 1 OR sum(p.amount_cents) <> max(o.goods_cents + o.freight_cents) LIMIT 5;

-- check: the money captured is what accepted orders cost
SELECT captured || ' cents captured, accepted orders cost ' || accepted
FROM (SELECT (SELECT coalesce(sum(amount_cents), 0) FROM paid WHERE status = 'captured') AS captured,
             (SELECT coalesce(sum(goods_cents + freight_cents), 0) FROM all_orders WHERE status = 'accepted') AS accepted) money
WHERE captured <> accepted;

-- check: all lines of an order are reserved, or none
SELECT 'product ' || coalesce(l.product_id, r.product_id) || ' of order ' || coalesce(l.order_id, r.order_id)
    || ': ' || coalesce(l.quantity, 0) || ' ordered, ' || coalesce(r.quantity, 0) || ' reserved'
FROM (SELECT line.* FROM all_lines line JOIN reserved s ON s.order_id = line.order_id AND s.status <> 'refused') l
FULL JOIN all_reserved_lines r ON r.order_id = l.order_id AND r.product_id = l.product_id
WHERE l.quantity IS DISTINCT FROM r.quantity LIMIT 5;

-- check: for every product in every warehouse, first stock and deliveries less what is on hand is what accepted orders took
SELECT product_id || ' (' || name || ') in stock_' || shard || ': ' || initial || ' + ' || restocked || ' delivered - ' || on_hand || ' on hand, ' || sold || ' sold'
FROM (SELECT p.*,
             (SELECT coalesce(sum(quantity), 0) FROM all_deliveries d WHERE d.product_id = p.product_id AND d.shard = p.shard) AS restocked,
             (SELECT coalesce(sum(l.quantity), 0) FROM all_reserved_lines l JOIN ends e ON e.order_id = l.order_id
              WHERE l.product_id = p.product_id AND l.shard = p.shard AND e.how = 'accepted') AS sold
      FROM all_products p) shelf
WHERE initial + restocked - on_hand <> sold LIMIT 5;

-- check: every transaction is decided, and every committed one published
SELECT id || ' is ' || outcome FROM transactions WHERE outcome NOT IN ('published', 'rolled_back') LIMIT 5;

-- check: the history tells one decision of each transaction, the one that stands
SELECT t.id || ' is ' || t.state || ', its history says ' || coalesce(string_agg(d.state, ', '), 'nothing')
FROM transactions t LEFT JOIN decisions d ON d.id = t.id
GROUP BY t.id HAVING count(d.id) <> 1 OR max(d.state) <> t.state LIMIT 5;

-- check: nobody contradicted a decision
SELECT id || ' was contradicted ' || contradictions || ' times' FROM transactions WHERE contradictions > 0 LIMIT 5;

-- check: a transaction is committed exactly when its business row is there, once
SELECT t.id || ' (' || t.topic || ') is ' || t.state || ' and has ' || count(b.id) || ' business rows'
FROM transactions t LEFT JOIN business b ON b.id = t.id
GROUP BY t.id HAVING count(b.id) <> CASE t.state WHEN 'committed' THEN 1 ELSE 0 END LIMIT 5;

-- check: every business row belongs to a published transaction of its topic
SELECT b.what || ' of order ' || b.order_id || ': transaction ' || b.id || ' is ' || coalesce(t.outcome || ' for ' || t.topic, 'unknown')
FROM business b LEFT JOIN transactions t ON t.id = b.id
WHERE t.outcome IS DISTINCT FROM 'published' OR b.what NOT LIKE t.topic || '/%' LIMIT 5;

-- check: the marker says the same as the decision, in the database of the business row
SELECT t.id || ' is ' || t.state || ', its marker in ' || m.place || ' is ' || m.value
FROM transactions t JOIN markers m ON m.id = t.id LEFT JOIN business b ON b.id = t.id
WHERE m.value <> CASE t.state WHEN 'committed' THEN 1 ELSE 0 END OR m.place <> coalesce(b.place, m.place) LIMIT 5;

-- check: no marker belongs to a transaction that nobody knows
SELECT 'marker ' || m.id || ' in ' || m.place FROM markers m WHERE m.id NOT IN (SELECT id FROM transactions) LIMIT 5;

-- check: what a dead till left open was decided by a check-back, from the marker
SELECT 'order ' || a.order_id || ' lost its till and was decided by ' || d.actor || ' (' || d.evidence || ')'
FROM asked a JOIN business b ON b.order_id = a.order_id AND b.what = 'orders/placed' JOIN decisions d ON d.id = b.id
WHERE a.loses_till AND d.actor <> 'marker' LIMIT 5;
