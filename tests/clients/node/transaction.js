// What a transactional producer says. The library has no such producer, but its connection and its codec carry all that is
// needed: half messages, END_TRANSACTION (37) and CHECK_TRANSACTION_STATE (39).
'use strict';

const RemotingCommand = require('ali-ons/lib/protocol/command/remoting_command');
const MessageDecoder = require('ali-ons/lib/message/message_decoder');
const ByteBuffer = require('byte');
const { message, started, sent } = require('./send');
const { tell, pause } = require('./facts');

const END_TRANSACTION = 37;
const CHECK_TRANSACTION_STATE = 39;
const FLAGS = { unknown: 0, commit: 8, rollback: 12 };

// One-way answers need a moment on their way.
const MORE_MILLISECONDS = 1500;

// By a message's number modulo 5: what is said after the local transaction, then the answers to check-backs.
const LOCAL = [ 'commit', 'rollback', 'unknown', 'unknown', 'unknown' ];
const ANSWERS = [[], [], [ 'commit' ], [ 'rollback' ], [ 'unknown', 'commit' ]];

async function settle(order) {
  const producer = await started(order);
  const client = producer._mqClient;
  const asked = new Map();
  let open = 0;
  for (let number = 0; number < order.count; number++) {
    open += ANSWERS[number % 5].length;
  }
  let resolve;
  const settled = new Promise(done => { resolve = done; });

  client.on('request', async ({ data: request }, address) => {
    if (request.code !== CHECK_TRANSACTION_STATE) {
      return;
    }
    const fields = request.extFields;
    const buffer = ByteBuffer.wrap(request.body);
    const [ half ] = MessageDecoder.decodes(buffer);
    const number = Number(half.properties.number);
    const times = (asked.get(half.keys) || 0) + 1;
    asked.set(half.keys, times);
    const last = ANSWERS[number % 5].length;
    const answer = last === 0 ? LOCAL[number % 5] : ANSWERS[number % 5][Math.min(times, last) - 1];
    tell('checked', { key: half.keys, body: half.body.toString(), transaction: fields.transactionId, times, answer });
    await end(client, typeof address === 'string' ? address : address.host, {
      producerGroup: order.group,
      tranStateTableOffset: fields.tranStateTableOffset,
      commitLogOffset: fields.commitLogOffset,
      commitOrRollback: FLAGS[answer],
      fromTransactionCheck: true,
      msgId: half.properties.UNIQ_KEY || fields.msgId,
      transactionId: fields.transactionId,
    });
    if (times <= last && --open === 0) {
      resolve();
    }
  });

  for (let number = 0; number < order.count; number++) {
    const half = message(order, number);
    half.properties.TRAN_MSG = 'true';
    half.properties.PGROUP = order.group;
    half.properties.UNIQ_KEY = `${process.pid.toString(16)}${Date.now().toString(16)}${number}`.toUpperCase().padStart(32, '0');
    const result = await producer.send(half);
    const local = LOCAL[number % 5];
    tell('half', Object.assign(sent(half, result), { local }));
    if (local !== 'unknown') {
      const broker = client.findBrokerAddressInPublish(result.messageQueue.brokerName);
      await end(client, broker, {
        producerGroup: order.group,
        tranStateTableOffset: result.queueOffset,
        // The last 8 bytes of the id that the server gave.
        commitLogOffset: BigInt(`0x${result.msgId.slice(-16)}`).toString(),
        commitOrRollback: FLAGS[local],
        fromTransactionCheck: false,
        msgId: half.properties.UNIQ_KEY,
        transactionId: half.properties.UNIQ_KEY,
      });
    }
  }
  await settled;
  await pause(MORE_MILLISECONDS);
  await producer.close();
}

function end(client, address, fields) {
  return client.invokeOneway(address, RemotingCommand.createRequestCommand(END_TRANSACTION, fields));
}

module.exports = { settle };
