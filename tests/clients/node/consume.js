// What a push consumer does: it ends when it has `count` different messages and a moment has passed.
'use strict';

const { Consumer } = require('ali-ons');
const { tell, received, logger, pause } = require('./facts');

// So long it stays afterwards, to see what should not come.
const MORE_MILLISECONDS = 1500;

async function take(order, sendBack) {
  const consumer = new Consumer({
    httpclient: {},
    nameSrv: order.nameserver,
    consumerGroup: order.group,
    consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET',
    isBroadcast: false,
    // The retry topic comes into being while the consumer runs; 30 seconds until it is seen are long for a test.
    pollNameServerInteval: 2000,
    rebalanceInterval: 2000,
    logger,
  });
  consumer.on('error', failure => console.error(String(failure)));
  const bodies = new Set();
  await consumer.ready();
  const all = new Promise(resolve => {
    consumer.subscribe(order.topic, order.subscription, async message => {
      if (sendBack && message.reconsumeTimes === 0) {
        received(message, 'later');
        return Consumer.ACTION_RETRY;
      }
      received(message, 'taken');
      bodies.add(message.body.toString());
      if (bodies.size >= order.count) {
        resolve();
      }
    });
  });
  tell('started', {});
  // The watch in client.js ends a wait in vain.
  await all;
  await pause(MORE_MILLISECONDS);
  await consumer.close();
  if (bodies.size !== order.count) {
    throw new Error(`${bodies.size} instead of ${order.count}`);
  }
}

module.exports = {
  consume: order => take(order, false),
  /** Gives each message back the first time; the server chooses the delay. */
  consumeRetry: order => take(order, true),
};
