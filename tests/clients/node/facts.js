// Facts: what happened, each as one line of JSON on standard output.
'use strict';

const fs = require('fs');

function tell(name, members) {
  // Written at once, so that nothing is lost when the process exits.
  fs.writeSync(1, JSON.stringify(Object.assign({ fact: name }, members)) + '\n');
}

/** A message as a consumer sees it. */
function received(message, answer) {
  tell('received', {
    key: message.keys,
    tag: message.tags,
    body: message.body.toString(),
    id: message.properties.UNIQ_KEY,
    queue: message.queueId,
    offset: message.queueOffset,
    reconsumed: message.reconsumeTimes,
    born: message.bornTimestamp,
    stored: message.storeTimestamp,
    answer,
  });
}

/** A logger for the library: errors only, and not among the facts. */
const logger = {
  info() {},
  debug() {},
  warn() {},
  error(...what) {
    console.error(...what);
  },
};

const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

module.exports = { tell, received, logger, pause };
