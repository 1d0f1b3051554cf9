// Records all that the page's sockets receive, and what goes wrong in it, before any other script.
//
// The query of the page is JSON: what it was asked to do.

const asked = JSON.parse(decodeURIComponent(location.search.slice(1)));
globalThis.told = [];  // frames and what the client told the page about them, in their order
const wrong = [];  // what must not happen
const sent = [];  // messages of the page
const sockets = [];
const waiting = new Set();
let shiftMs = asked.shift_ms ?? 0;  // how wrong the clock of this machine is

/** Add an entry, and let those go on who wait for what is true now. */
function tell(entry) {
  told.push(entry);
  queueMicrotask(() => waiting.forEach((look) => look()));
}

/** Resolve when `condition` is true; it is asked again after every entry. */
function until(condition) {
  return new Promise((resolve) => {
    const look = () => {
      if (!condition()) return;
      waiting.delete(look);
      resolve();
    };
    waiting.add(look);
    look();
  });
}

/** The name of the feed that a socket's address belongs to. */
function feedOf({pathname, searchParams}) {
  const plain = ([name]) => !['since', 'token', 'alive_ms'].includes(name);
  const text = (pairs) => JSON.stringify([...pairs].filter(plain).sort());
  const same = ([, filter]) => text(Object.entries(filter)) === text(searchParams);
  return pathname.endsWith('/v1/events') && Object.entries(asked.feeds).find(same)[0];
}

if (asked.no_locks) delete Navigator.prototype.locks;

globalThis.Date = class extends Date {
  constructor(...parts) {
    if (parts.length) super(...parts);
    else super(Date.now());
  }

  static now() {
    return super.now() + shiftMs;
  }
};

globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols);
    const feed = feedOf(new URL(url));
    sockets.push(this);
    this.addEventListener('message', ({data}) => tell({feed, frame: data}));
    this.addEventListener('close', ({code}) => tell({feed, closed: code}));
  }

  send(data) {
    sent.push(JSON.parse(data));
    super.send(data);
  }
};

addEventListener('error', ({message}) => wrong.push(message));
addEventListener('unhandledrejection', ({reason}) => wrong.push(`unhandled: ${reason?.stack}`));
addEventListener('pageshow', ({persisted}) => tell({pageshow: persisted}));
