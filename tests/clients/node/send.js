// What a plain producer does.
'use strict';

const { Producer, Message } = require('ali-ons');
const { tell, logger } = require('./facts');

/** The message with this number. */
function message(order, number) {
  const made = new Message(order.topic, [ 'TagA', 'TagB', 'TagC' ][number % 3], `${order.topic} ${order.group} ${number}`);
  made.keys = [ `${order.group}-${number}` ];
  made.properties.number = String(number);
  return made;
}

async function started(order) {
  const producer = new Producer({
    // The library asks for an HTTP client although it needs none with a nameserver.
    httpclient: {},
    nameSrv: order.nameserver,
    producerGroup: order.group,
    sendMsgTimeout: 10000,
    logger,
  });
  await producer.ready();
  // A topic that does not exist yet has no route; the library then wants the route of the topic for new topics.
  const client = producer._mqClient;
  await client.updateTopicRouteInfoFromNameServer(order.topic)
    .catch(() => client.updateTopicRouteInfoFromNameServer(order.topic, true, producer));
  // At its start the library knew no broker to announce the producer to; by itself it tries again after 30 seconds.
  await client.sendHeartbeatToAllBroker();
  return producer;
}

/** What the server answered to a send. */
function sent(message, result) {
  return {
    key: message.keys,
    tag: message.tags,
    body: message.body.toString(),
    offset_id: result.msgId,
    queue: Number(result.messageQueue.queueId),
    offset: result.queueOffset,
  };
}

async function sendEach(order, change, facts) {
  const producer = await started(order);
  for (let number = 0; number < order.count; number++) {
    const each = message(order, number);
    change(each, number);
    const result = await producer.send(each);
    if (result.sendStatus !== 'SEND_OK') {
      throw new Error(`message ${number} not stored: ${JSON.stringify(result)}`);
    }
    tell('sent', facts(each, result));
  }
  await producer.close();
}

/** Sends messages with keys, tags and a property `number`, one by one. */
const send = order => sendEach(order, () => {}, sent);

/** Sends messages that are to be delivered a second later (delay level 1). */
const sendDelayed = order => sendEach(order, each => { each.delayTimeLevel = 1; }, (each, result) => {
  const { key, tag, body } = sent(each, result);
  // Where it stands now is not where it will be delivered from.
  return { key, tag, body };
});

/** Sends messages with two sharding keys: those of one key go to one queue. */
const sendOrdered = order => sendEach(order, (each, number) => { each.shardingKey = String(number % 2); }, sent);

module.exports = { message, started, sent, send, sendDelayed, sendOrdered };
