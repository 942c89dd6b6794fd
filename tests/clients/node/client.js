// Plays one scenario against a RocketMQ server; see tests/clients/README.md.
'use strict';

const { send, sendDelayed, sendOrdered } = require('./send');
const { consume, consumeRetry } = require('./consume');
const { settle } = require('./transaction');
const { tell } = require('./facts');

const SCENARIOS = {
  send,
  'send-delayed': sendDelayed,
  'send-ordered': sendOrdered,
  consume,
  'consume-retry': consumeRetry,
  transaction: settle,
};

async function main() {
  const [scenario, nameserver, topic, group, count, subscription = '*'] = process.argv.slice(2);
  const play = SCENARIOS[scenario];
  if (!play || !(Number(count) > 0)) {
    console.error('usage: client.js SCENARIO NAMESERVER TOPIC GROUP COUNT [SUBSCRIPTION]');
    process.exit(2);
  }
  endInTime();
  try {
    await play({ nameserver, topic, group, count: Number(count), subscription });
    tell('done', {});
    process.exit(0);
  } catch (failure) {
    console.error(failure);
    tell('failed', { why: String(failure) });
    process.exit(1);
  }
}

/** Gives up after CLIENT_SECONDS, a minute if that is not set. */
function endInTime() {
  const seconds = Number(process.env.CLIENT_SECONDS || 60);
  setTimeout(() => {
    tell('failed', { why: `took longer than ${seconds} s` });
    process.exit(1);
  }, seconds * 1000).unref();
}

main();
