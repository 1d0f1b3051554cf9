// Does what the page was asked to do with the client: be a session (`me`), follow feeds (`feeds`).

import {connect, events} from './client.js';

/** The options of one of them; its tokens, if there are several, are those that it gets in turn. */
function options(of) {
  const tokens = asked.tokens?.slice();
  const next = (why) => {
    tell({of, why});
    return tokens.length > 1 ? tokens.shift() : tokens[0];
  };
  return {url: asked.url, token: tokens ? next : asked.token};
}

function told_state(of, live) {
  live.addEventListener('state', ({state, error, retryAt}) => {
    if (state !== live.state) wrong.push(`${of}: ${state} was told, ${live.state} is shown`);
    tell({of, state, code: error?.code, close_code: error?.closeCode, retry_at: retryAt?.getTime()});
  });
}

/** Whether a record cannot be changed, at any depth. */
function frozen(value) {
  return typeof value !== 'object' || value === null
    || (Object.isFrozen(value) && Object.values(value).every(frozen));
}

/**
 * Tell what differs between the Map at this batch and the Map at the one before, by looking at all
 * of it; the batch must say the same, with the very records.
 */
function follow(name, filter) {
  const feed = events(filter, options(name));
  let held = new Map();
  feed.addEventListener('changes', ({changes, position, resync}) => {
    const {sessions} = feed;
    const moved = [...sessions].filter(([id, now]) => held.get(id) !== now);
    for (const id of held.keys()) if (!sessions.has(id)) moved.push([id, null]);
    for (const {type, id, before, now} of changes) {
      const kind = before ? (now ? 'update' : 'exit') : now ? 'enter' : 'nothing';
      if (type !== kind || before !== held.get(id) || now !== sessions.get(id)) {
        wrong.push(`${name}: ${type} of ${id} is not what happened`);
      }
    }
    if (position !== feed.position) wrong.push(`${name}: ${position} is told at ${feed.position}`);
    if (!moved.every(([, now]) => frozen(now))) wrong.push(`${name}: a record can be changed`);
    held = new Map(sessions);
    tell({
      feed: name, position, resync, moved: JSON.stringify(moved), size: sessions.size,
      changes: changes.map(({id, events}) => [id, events]),
    });
  });
  told_state(name, feed);
  return feed;
}

/** Be a session; `asked.on_closing` is the body of a listener for its pending close. */
function attend() {
  const me = connect({...options('me'), ...asked.me});
  told_state('me', me);
  const closing = new Function('event', asked.on_closing ?? '');
  for (const type of ['closing', 'close-moved', 'close-cancelled', 'stop-stream', 'message']) {
    me.addEventListener(type, (event) => {
      if (type === 'closing') {
        globalThis.closing = event;
        event.signal.addEventListener('abort', () => tell({of: 'me', type: 'abort'}));
        closing(event);
      }
      const {remainingMs, reason, extendMaxMs, topic, body, detail} = event;
      tell({of: 'me', type, at: event.at?.getTime(), remainingMs, reason, extendMaxMs, topic, body, detail});
    });
  }
  return me;
}

globalThis.feeds = Object.fromEntries(
  Object.entries(asked.feeds).map(([name, filter]) => [name, follow(name, filter)]),
);
if (asked.me) globalThis.me = attend();
globalThis.GatewayError = (await import('./client.js')).GatewayError;
tell({loaded: true});
