/**
 * Session Gateway's client for pages, also for workers and Node.
 *
 * `events()` follows the sessions of a filter, `connect()` is a session. Both keep one WebSocket
 * over as many connections as that takes, until they are closed or the gateway refuses them (close
 * codes 4500 to 4999). What they promise stands in `client.d.ts`.
 *
 * Three layers: `Link` keeps a connection and knows when a page sleeps; `Live` is what callers see
 * of it; `Feed` and `Me` know the messages.
 */

const HELLO_MS = 15_000; // from dialling to the first message; then the attempt has failed
const CLOSE_MS = 2_000; // for the closing handshake, and for the close after a `bye`
const TOKEN_MS = 10_000; // how long the token function may take; then the attempt has failed
const REFRESH_AHEAD_MS = 30_000; // before a token expires; halfway to it if it lives less than twice that
const PROBE_MS = 4_000; // for an answer after the page woke up; then the connection is dead
const BACKOFF_MS = 500; // the longest first wait; it doubles with every failure
const BACKOFF_MAX_MS = 20_000; // the longest wait of our own choosing
const RETRY_AFTER_MAX_MS = 300_000; // the longest wait that a gateway may ask for
const STABLE_MS = 10_000; // a connection that lived this long forgets earlier failures
const BATCHES_MAX = 256; // that an iterator has not taken yet; more become one, their difference
const NAMES_MAX = 64; // of events of one session that became one change
const WRITES_MAX = 256; // without an answer; one more is refused
const WRITES_SENT_MAX = 8; // at a time: as many refs as a session remembers
const LEAVE_MS = 5_000; // until `leave()` gives up; then the session ends after its linger time
const CLAIM_MS = 1_000; // for a page that is being reloaded to let go of its session's lock
const ASK_MS = 300; // for a twin's answer, where there are no Web Locks
const PROGRESS_MS = 1_000; // between two reports of a position; the newest counts
const TIMER_MAX_MS = 2 ** 31 - 1; // what setTimeout takes

const CODES = {
  4001: 'draining', 4002: 'too_slow', 4003: 'no_heartbeat', 4005: 'token_expired', 4006: 'rate_limited',
  4008: 'store_unavailable', 4009: 'internal', 4500: 'session_closed', 4501: 'kicked', 4502: 'unauthorized',
  4503: 'bad_request', 4505: 'displaced', 4506: 'limit_exceeded', 4507: 'forbidden', 4511: 'session_closed',
};
const RETRYABLE = /^(conflict|rate_limited|unavailable|store_\w+|outcome_unknown|repairing|draining|position_ahead|overloaded)$/;

export class GatewayError extends Error {
  constructor(code, message, { closeCode, status, retryable = RETRYABLE.test(code) } = {}) {
    super(message || code);
    this.name = 'GatewayError';
    Object.assign(this, { code, closeCode, status, retryable });
  }
}

class DataEvent extends Event {
  constructor(type, data) {
    super(type);
    Object.assign(this, data);
  }
}
export class ChangesEvent extends DataEvent {}
export class StateEvent extends DataEvent {}
export class TopicEvent extends DataEvent {}

// --- JSON

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

function frozen(value) {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.values(value).forEach(frozen);
    Object.freeze(value);
  }
  return value;
}

/** The value after a merge patch (RFC 7396), frozen; it shares with the old one what did not change. */
function patched(old, patch) {
  const result = new Map(Object.entries(isObject(old) ? old : {}));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) result.delete(key);
    else result.set(key, isObject(value) ? patched(result.get(key), value) : value);
  }
  return frozen(Object.fromEntries(result)); // not by assignment: a key may be `__proto__`
}

function same(a, b) {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || !a || !b || Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}

// --- time and pages

const ran = () => performance.now();
const later = (run, ms) => setTimeout(run, Math.max(0, Math.min(ms, TIMER_MAX_MS)));

function bounded(promise, ms, code, message) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = later(() => fail(new GatewayError(code, message, { retryable: true })), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Calls `run` with the next frame; no frame comes in hidden pages, workers and Node, so by a timer too. */
function nextFrame(run) {
  let frame;
  const once = () => {
    clearTimeout(timer);
    if (frame !== undefined) cancelAnimationFrame(frame);
    run();
  };
  const isShown = globalThis.requestAnimationFrame && globalThis.document?.visibilityState === 'visible';
  const timer = setTimeout(once, isShown ? 250 : 16);
  if (isShown) frame = requestAnimationFrame(once);
}

/** Calls `on.wake`, `on.sleep` and `on.doubt` (is the network there?) as the page does; returns how to stop that. */
function watchPage(on) {
  const page = globalThis.document;
  const heard = [
    [page, 'visibilitychange', () => page.visibilityState === 'visible' && on.wake()],
    [page, 'freeze', () => on.sleep('frozen')],
    [page, 'resume', () => on.wake()],
    [globalThis, 'pagehide', () => on.sleep('hidden')],
    [globalThis, 'pageshow', ({ persisted }) => persisted && on.wake()],
    [globalThis, 'online', () => on.wake()],
    [globalThis, 'offline', () => on.doubt()],
  ].filter(([target]) => target?.addEventListener);
  for (const [target, type, listener] of heard) target.addEventListener(type, listener);
  return () => {
    for (const [target, type, listener] of heard) target.removeEventListener(type, listener);
  };
}

// --- tokens

function claims(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))) ?? {};
  } catch {
    return {}; // an API key
  }
}

class Tokens {
  why = 'start'; // why a new one is needed; undefined: it is not
  value;
  refreshAt = Infinity; // by the wall clock
  #source;
  #asking;

  constructor(source) {
    this.#source = source;
  }

  get isRenewable() {
    return typeof this.#source === 'function';
  }

  async get() {
    if (!this.isRenewable) return (this.value = this.#source);
    const why = this.why ?? (Date.now() >= this.refreshAt ? 'expired' : undefined);
    if (!why) return this.value;
    this.stop();
    const asking = (this.#asking = new AbortController());
    try {
      const answer = Promise.resolve(this.#source(why, asking.signal));
      const value = await bounded(answer, TOKEN_MS, 'token_failed', 'The token function did not answer in time.');
      if (typeof value !== 'string' || !value) throw new TypeError('The token function returned no token.');
      const left = claims(value).exp * 1000 - Date.now();
      this.refreshAt = left > 0 ? Date.now() + left - Math.min(REFRESH_AHEAD_MS, left / 2) : Infinity;
      if (this.why === why) this.why = undefined;
      return (this.value = value);
    } catch (error) {
      if (error instanceof GatewayError) throw error;
      throw new GatewayError('token_failed', String(error?.message ?? error), { retryable: true });
    } finally {
      if (this.#asking === asking) this.stop();
    }
  }

  stop() {
    this.#asking?.abort();
    this.#asking = undefined;
  }
}

// --- one WebSocket after another

function baseOf(url) {
  const base = new URL(url ?? '.', globalThis.document && url !== undefined ? document.baseURI : import.meta.url);
  base.protocol = base.protocol.replace(/^http/, 'ws');
  if (!/^wss?:$/.test(base.protocol)) throw new TypeError(`The url of a gateway is needed, not ${base}`);
  if (!base.pathname.endsWith('/')) base.pathname += '/';
  base.search = base.hash = base.username = base.password = '';
  return base;
}

const offer = (kind, token) => `${kind}.${encodeURIComponent(token).replace(/[()]/g, (c) => (c === '(' ? '%28' : '%29'))}`;

/**
 * Keeps one connection. Its owner has `path`, `prepare(token)` (the query, and further protocols),
 * `onMessage`, `onLost`, `onSleep`, `onState`, `hasLeft`, `isClosing` (then a lost connection is not let
 * in again, so that it is only given up when it does not answer) and `isOver(error)`, which may change
 * what an end means.
 */
class Link {
  state = 'connecting';
  error;
  #owner;
  #address;
  #tokens;
  #WebSocket;
  #socket; // the one whose messages count
  #attempt = 0;
  #failures = 0;
  #retryAt; // by the wall clock, while it waits to dial
  #retryTold = false; // whether the gateway chose that time
  #isAsleep = false;
  #bye;
  #dialledAt;
  #liveAt;
  #heartbeatMs;
  #heardAt; // by both clocks: one stands still during sleep, the other may be set
  #heardRan;
  #sentRan;
  #probedRan; // when a sign of life was asked for, until something is heard
  #timers = {};
  #forgetPage;
  #forgetSignal;
  #wasRefused = false; // whether its token was, since the last hello
  #isRenewing = false;

  constructor(owner, { url, token, signal, WebSocket = globalThis.WebSocket }) {
    if (!WebSocket) throw new TypeError('There is no WebSocket here: pass one as an option.');
    this.#owner = owner;
    this.base = baseOf(url);
    this.#address = new URL(owner.path, this.base);
    this.#tokens = new Tokens(token);
    this.#WebSocket = WebSocket;
    this.#forgetPage = watchPage({
      wake: () => this.#wake(),
      sleep: (why) => this.#sleep(why),
      doubt: () => this.#heartbeatMs && this.#doubt(),
    });
    const abort = () => owner.close();
    signal?.addEventListener('abort', abort);
    this.#forgetSignal = () => signal?.removeEventListener('abort', abort);
    queueMicrotask(() => (signal?.aborted ? owner.close() : this.#dial()));
  }

  get isFinal() {
    return this.state === 'refused' || this.state === 'closed';
  }

  /** The connection that takes messages; undefined if there is none. */
  get socket() {
    return this.state === 'live' ? this.#socket : undefined;
  }

  /** Says that the owner holds what it needs. */
  live() {
    this.#liveAt ??= ran();
    this.#set('live');
  }

  send(message) {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(typeof message === 'string' ? message : JSON.stringify(message));
    this.#sentRan = ran();
    return true;
  }

  /** Dials now, if it is waiting to. */
  retry() {
    if (this.#retryAt !== undefined) this.#dial();
  }

  /** Gives this connection up and dials at once. */
  redial() {
    if (this.isFinal || this.#isAsleep) return;
    this.#drop(1000, '');
    this.#dial();
  }

  /** Ends for good; resolves when the socket is closed. */
  async finish(state, error, code = 1000) {
    if (this.isFinal) return;
    const socket = this.#socket;
    this.#attempt += 1;
    this.#forgetPage();
    this.#forgetSignal();
    this.#tokens.stop();
    const closed = socket && socket.readyState !== 3 && new Promise((done) => {
      socket.onclose = socket.onerror = done;
      later(done, CLOSE_MS);
    });
    this.#drop(code, '', true);
    this.#set(state, error);
    await closed;
  }

  #set(state, error, retryAt) {
    if (this.isFinal || (state === this.state && !error && !retryAt)) return;
    this.state = state;
    this.error = error;
    this.#owner.onState({ state, error, retryAt: retryAt && new Date(retryAt) });
  }

  #timer(name, run, ms) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = run && later(run, ms);
  }

  /** Leaves the socket and all timers, so that nothing more is heard of them. */
  #drop(code, reason, keepsClose = false) {
    const socket = this.#socket;
    this.#socket = this.#bye = this.#liveAt = this.#probedRan = this.#heartbeatMs = this.#retryAt = undefined;
    for (const name in this.#timers) this.#timer(name);
    if (!socket) return;
    socket.onopen = socket.onmessage = null;
    if (!keepsClose) socket.onclose = null;
    if (!keepsClose) socket.onerror = () => {}; // of a handshake that is broken off
    try {
      socket.close(code, reason);
    } catch {
      socket.close();
    }
    this.#owner.onLost();
  }

  async #dial() {
    const attempt = ++this.#attempt;
    this.#drop();
    const isCurrent = () => attempt === this.#attempt && !this.isFinal;
    this.#dialledAt = Date.now();
    this.#set(this.state === 'connecting' ? 'connecting' : 'stale');
    try {
      const token = await this.#tokens.get();
      if (!isCurrent()) return;
      const { query, protocols = [] } = await this.#owner.prepare(token);
      if (!isCurrent()) return;
      this.#address.search = query;
      const offers = ['gateway.v1', ...(token ? [offer('bearer', token)] : []), ...protocols];
      const socket = (this.#socket = new this.#WebSocket(String(this.#address), offers));
      socket.onmessage = ({ data }) => this.#hear(data);
      socket.onclose = ({ code, reason }) => this.#ended(this.#bye ?? { code, reason });
      socket.onerror = () => {}; // its close follows
      this.#timer('patience', () => this.#ended({ code: 1006, reason: 'no answer in time' }), HELLO_MS);
      this.#planRefresh();
    } catch (error) {
      if (isCurrent()) this.#ended({ error });
    }
  }

  #hear(data) {
    this.#heardAt = Date.now();
    this.#heardRan = ran();
    this.#probedRan = undefined;
    this.#timer('probe');
    const socket = this.#socket;
    try {
      const message = JSON.parse(data);
      if (message.type === 'hello') this.#greeted(message);
      if (message.type === 'bye') this.#hearBye(message);
      else if (this.#heartbeatMs) this.#owner.onMessage(message);
    } catch (error) {
      if (socket !== this.#socket) return;
      this.#ended({ error: new GatewayError('bad_message', String(error?.message), { retryable: true }) });
      return;
    }
    if (socket !== this.#socket || !this.#heartbeatMs) return;
    // Messages are heard in hidden pages, whose timers hardly run.
    if (ran() - this.#sentRan >= this.#heartbeatMs) this.send({ type: 'heartbeat' });
    if (Date.now() >= this.#tokens.refreshAt) this.#renew();
  }

  #greeted({ heartbeat_ms }) {
    this.#timer('patience');
    this.#wasRefused = false;
    this.#heartbeatMs = Math.max(100, Number(heartbeat_ms) || 15_000);
    this.#sentRan = ran();
    this.#tick();
  }

  #hearBye(bye) {
    this.#bye = { code: Number(bye.code), reason: String(bye.reason ?? ''), detail: bye.detail, retryAfter: bye.retry_after_ms };
    this.#timer('patience', () => this.#ended(this.#bye), CLOSE_MS);
  }

  /** Looks twice in a heartbeat whether the gateway is heard; asks it first, as the timer may be late. */
  #tick() {
    const step = this.#heartbeatMs / 2;
    this.#timer('tick', () => {
      if (ran() - this.#heardRan > 3 * step) {
        if (this.#probedRan !== undefined && ran() - this.#probedRan >= step) return this.redial();
        this.#probe();
      }
      if (Date.now() >= this.#tokens.refreshAt) this.#renew();
      this.#tick();
    }, step);
  }

  #probe() {
    if (this.#probedRan !== undefined) return;
    this.#probedRan = ran();
    this.send({ type: 'heartbeat' });
  }

  /** The page is back, or its network: what was silent for long is dead, whatever the browser says. */
  #wake() {
    if (this.isFinal) return;
    if (this.#isAsleep) {
      this.#isAsleep = false;
      this.#dial();
    } else if (this.#retryAt !== undefined) {
      if (!this.#retryTold || Date.now() >= this.#retryAt) this.#dial();
    } else if (!this.#heartbeatMs) {
      if (this.#socket && Date.now() - this.#dialledAt > HELLO_MS) this.redial();
    } else if (Math.max(Date.now() - this.#heardAt, ran() - this.#heardRan) > 2 * this.#heartbeatMs && !this.#owner.isClosing()) {
      this.redial();
    } else {
      this.#doubt();
    }
  }

  #doubt() {
    this.#probe();
    this.#timer('probe', () => this.redial(), PROBE_MS);
  }

  /** A page that is frozen or cached cannot speak, so it does not stay; it comes back. */
  #sleep(why) {
    if (this.isFinal || this.#isAsleep) return;
    this.#isAsleep = true;
    this.#attempt += 1;
    this.#tokens.stop();
    // A page may not send 1001. Of a frozen page nobody says that its user has left: not clean.
    this.#drop(why === 'frozen' ? 4900 : 1000, why);
    this.#owner.onSleep();
    this.#set(this.state === 'connecting' ? 'connecting' : 'stale');
  }

  #planRefresh() {
    if (this.#tokens.refreshAt < Infinity) this.#timer('refresh', () => this.#renew(), this.#tokens.refreshAt - Date.now());
  }

  /** Sends a new token before the old one expires; if that fails the gateway says 4005. */
  async #renew() {
    if (this.#isRenewing || !this.#tokens.isRenewable || Date.now() < this.#tokens.refreshAt) return;
    const socket = this.#socket;
    this.#isRenewing = true;
    try {
      const token = await this.#tokens.get();
      if (socket === this.#socket) this.send({ type: 'token', token });
    } catch {
      this.#tokens.refreshAt = Infinity;
    } finally {
      this.#isRenewing = false;
      if (socket && socket === this.#socket) this.#planRefresh();
    }
  }

  #ended({ code, reason = '', detail, retryAfter, error }) {
    const lived = this.#liveAt === undefined ? 0 : ran() - this.#liveAt;
    this.#attempt += 1;
    this.#drop();
    this.#failures = lived >= STABLE_MS ? 1 : this.#failures + 1;
    error ??= this.#errorOf(code, reason, detail);
    if (!(error instanceof GatewayError)) error = new GatewayError('bad_request', String(error?.message ?? error), { retryable: false });
    const tokens = this.#tokens;
    let isOver = !error.retryable;
    if (code === 4005) { // the same token would be refused for ever; a cookie may have been renewed
      isOver = !tokens.isRenewable && (tokens.value !== undefined || this.#wasRefused);
      this.#wasRefused ||= !tokens.isRenewable;
      tokens.why = 'expired';
    } else if (code === 4502 && tokens.isRenewable && !this.#wasRefused) {
      isOver = false;
      this.#wasRefused = true;
      tokens.why = 'refused';
    }
    const hasLeft = this.#owner.hasLeft();
    if (hasLeft || (isOver && this.#owner.isOver(error))) {
      this.finish(hasLeft || code === 4500 ? 'closed' : 'refused', hasLeft && code !== 4500 ? undefined : error);
      return;
    }
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** Math.min(this.#failures - 1, 16));
    let wait = Math.random() * ceiling;
    this.#retryTold = Number.isFinite(retryAfter);
    if (this.#retryTold) {
      const told = Math.min(RETRY_AFTER_MAX_MS, Math.max(0, retryAfter)); // the gateway has spread its clients
      wait = this.#failures > 1 ? Math.max(told, wait) : told;
    }
    this.#retryAt = Date.now() + wait;
    this.#timer('retry', () => this.#dial(), wait);
    this.#set(this.state === 'connecting' ? 'connecting' : 'stale', error, this.#retryAt);
  }

  #errorOf(closeCode, reason, detail) {
    const [, word, rest] = /^([a-z_]+)(?:: (.*))?$/s.exec(reason) ?? [];
    const code = closeCode === 4500 || !word ? CODES[closeCode] ?? 'unreachable' : word;
    const retryable = !(closeCode >= 4500 && closeCode < 5000);
    return new GatewayError(code, detail || rest || reason.slice(0, 256), { closeCode, retryable });
  }
}

// --- what callers see

const START = Symbol('start');

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

class Live extends EventTarget {
  #link;
  #ready = deferred();
  #finished = deferred();

  [START](owner, options) {
    this.#ready.promise.catch(() => {}); // nobody may wait for it
    const onState = (change) => {
      const { state, error } = change;
      if (state === 'live') this.#ready.resolve();
      if (this.#link.isFinal) {
        this.#ready.reject(error ?? new GatewayError('closed', 'It was closed before it was live.'));
        this.#finished.resolve(error);
      }
      owner.onChange?.();
      this.dispatchEvent(new StateEvent('state', change));
    };
    const defaults = { onLost() {}, onSleep() {}, isOver: () => true, hasLeft: () => false, isClosing: () => false };
    this.#link = new Link({ ...defaults, ...owner, onState, close: () => this.close() }, options);
    return this.#link;
  }

  get state() {
    return this.#link.state;
  }

  get ready() {
    return this.#ready.promise;
  }

  get finished() {
    return this.#finished.promise;
  }

  retry() {
    this.#link.retry();
  }

  close() {
    return this.#link.finish('closed');
  }

  [Symbol.asyncDispose ?? Symbol('asyncDispose')]() {
    return this.close();
  }
}

// --- events

/** The net difference of steps, in order: one change for each session, none if it came and left. */
function summed(steps) {
  const changes = new Map();
  for (const step of steps) {
    const known = changes.get(step.id);
    if (known) {
      const { before, first, events } = known;
      Object.assign(known, step, { before, first, events: events.length < NAMES_MAX ? [...events, ...step.events] : events });
      known.type = before ? (known.now ? 'update' : 'exit') : known.now ? 'enter' : step.type;
    } else {
      changes.set(step.id, { ...step, first: step.type });
    }
  }
  const left = [...changes.values()].filter(({ first, type }) => first !== 'enter' || type !== 'exit');
  return frozen(left.map(({ first, ...change }) => change));
}

class Feed extends Live {
  #link;
  #filter;
  #sessions = new Map();
  #position;
  #incoming; // the pages of a snapshot, until it is whole
  #resync; // why the snapshot that comes replaces what is held
  #frames = new EventTarget();
  #isFramePlanned = false;

  constructor(filter, { since, ...options }) {
    super();
    this.#position = since;
    const given = Object.entries(filter).flatMap(([name, value]) => [value].flat().map((one) => [name, String(one)]));
    this.#filter = new URLSearchParams(given);
    this.#link = this[START]({
      path: 'v1/events',
      prepare: () => {
        const query = new URLSearchParams(this.#filter);
        if (this.#position !== undefined) query.set('since', this.#position);
        return { query };
      },
      onMessage: (message) => this.#hear(message),
      onLost: () => (this.#incoming = undefined),
      onChange: () => this.#planFrame(),
    }, options);
  }

  get sessions() {
    return this.#sessions;
  }

  get position() {
    return this.#position;
  }

  subscribe = (changed) => {
    const listener = () => changed();
    this.#frames.addEventListener('frame', listener);
    return () => this.#frames.removeEventListener('frame', listener);
  };

  async *[Symbol.asyncIterator]() {
    const held = [...this.#sessions.values()].map((now) => ({ type: 'enter', id: now.id, now, events: [] }));
    const queue = held.length ? [this.#batch(frozen(held))] : [];
    let wake;
    const take = (event) => {
      queue.push(event);
      if (queue.length > BATCHES_MAX) {
        const changes = summed(queue.flatMap((batch) => batch.changes));
        queue.splice(0, Infinity, this.#batch(changes, 'slow'));
      }
      wake?.();
    };
    const wakeUp = () => wake?.();
    this.addEventListener('changes', take);
    this.addEventListener('state', wakeUp);
    try {
      for (;;) {
        while (queue.length) yield queue.shift();
        if (this.#link.isFinal) break;
        await new Promise((resolve) => (wake = resolve));
      }
      if (this.#link.error) throw this.#link.error;
    } finally {
      this.removeEventListener('changes', take);
      this.removeEventListener('state', wakeUp);
    }
  }

  #hear(message) {
    switch (message.type) {
      case 'hello':
        if (message.mode === 'resume') this.#link.live();
        else this.#startOver(message.reason);
        break;
      case 'resync':
        this.#startOver(message.reason);
        break;
      case 'snapshot':
        this.#page(message);
        break;
      case 'events':
        this.#apply(message);
        break;
      case 'heartbeat':
        if (!this.#incoming) this.#position = String(message.position);
        break;
    }
  }

  #startOver(reason) {
    this.#incoming = new Map();
    if (this.#position !== undefined) this.#resync ??= String(reason ?? 'unknown');
  }

  #page({ sessions, position, more }) {
    if (!this.#incoming) throw new TypeError('A snapshot came unannounced.');
    for (const session of sessions) this.#incoming.set(String(session.id), session);
    if (more) return;
    const steps = [];
    for (const [id, before] of this.#sessions) {
      if (!this.#incoming.has(id)) steps.push({ type: 'exit', id, before, events: [] });
    }
    const whole = this.#incoming;
    for (const [id, session] of whole) {
      const before = this.#sessions.get(id);
      const now = before && same(before, session) ? before : frozen(session);
      whole.set(id, now);
      if (now !== before) steps.push({ type: before ? 'update' : 'enter', id, before, now, events: [] });
    }
    this.#sessions.clear();
    for (const [id, session] of whole) this.#sessions.set(id, session);
    this.#incoming = undefined;
    this.#position = String(position);
    const resync = this.#resync;
    this.#resync = undefined;
    this.#tell(steps, resync);
    this.#link.live();
  }

  #apply({ events, position }) {
    if (this.#incoming) throw new TypeError('Events came before the snapshot was whole.');
    const held = new Map(); // written at once, so that an event that cannot be read changes nothing
    const steps = events.map((event) => {
      const id = String(event.session_id);
      const before = held.has(id) ? held.get(id) : this.#sessions.get(id);
      const { type, now, last } = stepOf(event, before);
      held.set(id, now);
      return { type, id, before, now, last, events: [String(event.type)] };
    });
    for (const [id, now] of held) {
      if (now) this.#sessions.set(id, now);
      else this.#sessions.delete(id);
    }
    this.#position = String(position);
    if (steps.length) this.#tell(steps, undefined, events);
  }

  #batch(changes, resync, raw = []) {
    return new ChangesEvent('changes', { changes, position: this.#position, resync, raw });
  }

  #tell(steps, resync, raw) {
    this.#planFrame();
    this.dispatchEvent(this.#batch(summed(steps), resync, frozen(raw)));
  }

  #planFrame() {
    if (this.#isFramePlanned) return;
    this.#isFramePlanned = true;
    nextFrame(() => {
      this.#isFramePlanned = false;
      this.#frames.dispatchEvent(new Event('frame'));
    });
  }
}

/** What an event makes of a session. One that entered before `since` is not known, and stays so. */
function stepOf({ type, session, changes = {}, revision }, before) {
  if (type === 'session.enter' || type === 'session.opened') {
    const now = frozen(session ?? patched({}, changes));
    return { type: before ? 'update' : 'enter', now };
  }
  if (type === 'session.exit') return { type: 'exit' };
  const after = before && patched(before, revision === undefined ? changes : { ...changes, revision });
  return type === 'session.closed' ? { type: 'exit', last: after } : { type: 'update', now: after };
}

export function events(filter = {}, options = {}) {
  return new Feed(filter, options);
}

// --- connect

/**
 * Holds a session among the pages of this origin, so that a duplicated tab, which has a copy of the
 * session's token, does not displace its twin. It asks by a Web Lock, which browsers give to secure
 * pages, else by questions on a BroadcastChannel.
 */
class Claim {
  id;
  #turn = 0;
  #release;
  #channel;

  /** Returns whether the session of *id* is this page's now; no twin has one that is new. */
  async take(id, isNew = false) {
    if (this.id === id) return true;
    this.drop();
    const turn = this.#turn;
    const isFree = await (globalThis.navigator?.locks ? this.#lock(id) : this.#ask(id, isNew));
    if (turn !== this.#turn) return false;
    if (isFree) this.id = id;
    return isFree;
  }

  /** Lets go; a page that holds a lock or a channel is not cached by browsers. */
  drop() {
    this.#turn += 1;
    this.id = undefined;
    this.#release?.();
    this.#channel?.close();
    this.#release = this.#channel = undefined;
  }

  #lock(id) {
    const turn = this.#turn;
    const asked = new AbortController();
    const timer = later(() => asked.abort(), CLAIM_MS);
    return new Promise((resolve) => {
      const hold = () => {
        clearTimeout(timer);
        resolve(turn === this.#turn);
        if (turn !== this.#turn) return undefined;
        return new Promise((release) => (this.#release = release));
      };
      navigator.locks.request(`session-gateway ${id}`, { signal: asked.signal }, hold).catch((error) => {
        clearTimeout(timer);
        resolve(error?.name === 'AbortError' ? false : this.#ask(id)); // not allowed here
      });
    });
  }

  async #ask(id, isNew = false) {
    const turn = this.#turn;
    const me = isNew ? -1 : Math.random();
    let isFree = true;
    try {
      const channel = (this.#channel = new BroadcastChannel('session-gateway'));
      channel.onmessage = ({ data }) => {
        if (data?.held === id && data.to === me) isFree = false;
        if (data?.asked !== id) return;
        if (this.id === id || me < data.from) channel.postMessage({ held: id, to: data.from });
        else isFree = false; // both ask: the smaller number wins
      };
      channel.postMessage({ asked: id, from: me });
    } catch {
      return true; // no twin can be asked
    }
    await new Promise((done) => later(done, ASK_MS));
    if (!isFree && turn === this.#turn) this.drop();
    return isFree;
  }
}

/** Where a page keeps its session for a reload; it may be forbidden, or full. */
class Memory {
  #storage;

  constructor(remember) {
    try {
      this.#storage = { tab: globalThis.sessionStorage, origin: globalThis.localStorage }[remember];
    } catch {
      this.#storage = undefined;
    }
  }

  get isKept() {
    return this.#storage !== undefined;
  }

  get(key) {
    try {
      const { id, token } = JSON.parse(this.#storage.getItem(key));
      return typeof id === 'string' && typeof token === 'string' ? { id, token } : undefined;
    } catch {
      return undefined;
    }
  }

  set(key, value) {
    try {
      if (value) this.#storage.setItem(key, JSON.stringify(value));
      else this.#storage.removeItem(key);
    } catch {
      // then a reload is a new session
    }
  }
}

/** A pending close; the events of one share it, so that the page saves once. */
class Closing {
  endsRan; // not by the wall clock, which may be set meanwhile
  #send;
  #works = [];
  #abort = new AbortController();

  constructor(send) {
    this.#send = send;
  }

  get signal() {
    return this.#abort.signal;
  }

  get remainingMs() {
    return Math.max(0, this.endsRan - ran());
  }

  cancel() {
    this.#abort.abort();
  }

  async waitUntil(work) {
    this.#works.push(work);
    if (this.#works.length > 1) return;
    const quietly = () => {}; // the close was called off, or the connection has ended for good
    this.#send({ type: 'saving' }).catch(quietly);
    let results = [];
    while (results.length < this.#works.length) results = await Promise.allSettled(this.#works);
    if (this.signal.aborted || results.some(({ status }) => status === 'rejected')) return;
    this.#send({ type: 'saved' }).catch(quietly);
  }
}

export class ClosingEvent extends Event {
  #closing;
  #needMore;

  constructor(type, { at, reason, extendMaxMs, closing, needMore } = {}) {
    super(type);
    this.#closing = closing;
    this.#needMore = needMore;
    Object.assign(this, { at, reason, extendMaxMs });
  }

  get remainingMs() {
    return this.#closing.remainingMs;
  }

  get signal() {
    return this.#closing.signal;
  }

  waitUntil(work) {
    this.#closing.waitUntil(work);
  }

  needMore(ms) {
    return this.#needMore(ms);
  }
}

class Me extends Live {
  #link;
  #opening;
  #remember;
  #memory;
  #key;
  #mine; // {id, token} of the session
  #isRemembered = false; // whether it is an earlier page's, and was not greeted yet
  #claim = new Claim();
  #session;
  #position;
  #closing; // {at, closesAt, reason, extendMaxMs, shared}
  #hasLeft = false;
  #refs = 0;
  #prefix = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  #writes = new Map(); // by ref, in order, until they are answered
  #said = { changes: {}, watch: undefined, streams: new Map() }; // for a session that takes this one's place
  #progress;
  #progressRan = -Infinity;
  #progressTimer;

  constructor({ name, workspace, labels = {}, remember = 'tab', ...options }) {
    super();
    const opening = Object.entries(labels).map(([label, value]) => [`label.${label}`, value]);
    this.#opening = Object.entries({ name, workspace }).filter(([, value]) => value !== undefined).concat(opening);
    this.#remember = remember;
    this.#memory = new Memory(remember);
    this.#link = this[START]({
      path: 'v1/connect',
      prepare: (token) => this.#prepare(token),
      onMessage: (message) => this.#hear(message),
      onSleep: () => this.#claim.drop(),
      onChange: () => this.#link?.isFinal && this.#over(),
      isOver: (error) => this.#isOver(error),
      hasLeft: () => this.#hasLeft,
      isClosing: () => this.#closing !== undefined,
    }, options);
  }

  get session() {
    return this.#session;
  }

  get position() {
    return this.#position;
  }

  get closing() {
    return this.#closing && { at: this.#closing.at, reason: this.#closing.reason };
  }

  watch(key, more = {}) {
    return this.#write({ ...more, type: 'watch', key });
  }

  progress(position_ms) {
    this.#progress = { type: 'progress', position_ms };
    this.#report();
  }

  unwatch() {
    return this.#write({ type: 'unwatch' });
  }

  update(changes) {
    return this.#write({ type: 'update', changes });
  }

  stream(key, kind, state, data) {
    return this.#write({ type: 'stream', key, kind, state, data });
  }

  async leave() {
    if (this.#link.isFinal) return;
    try {
      await bounded(this.#write({ type: 'leave' }), LEAVE_MS, 'outcome_unknown', 'The gateway did not answer in time.');
    } catch (error) {
      if (!this.#link.isFinal) throw error;
    } finally {
      this.#memory.set(this.#key);
      await this.close();
    }
  }

  /** Chooses the session to be: this page's, the one that it remembers, or a new one. */
  async #prepare(token) {
    const subject = typeof token === 'string' ? claims(token).sub : undefined;
    this.#key ??= `session-gateway ${this.#link.base} ${subject ?? ''}`; // another user's is another session
    if (!this.#mine && !this.#session) {
      this.#mine = this.#memory.get(this.#key);
      this.#isRemembered = this.#mine !== undefined;
    }
    if (this.#mine && this.#memory.isKept && !(await this.#claim.take(this.#mine.id))) {
      this.#mine = undefined; // its twin has it
      this.#isRemembered = false;
      if (this.#remember === 'origin') this.#memory = new Memory(); // what is kept stays the twin's
    }
    if (!this.#mine) return { query: new URLSearchParams(this.#opening) };
    const { id, token: proof } = this.#mine;
    return { query: new URLSearchParams({ session: id }), protocols: [offer('session', proof)] };
  }

  /** Whether an end is one: a session that was only remembered may be gone, and then a new one opens. */
  #isOver(error) {
    if (!this.#isRemembered || ![4503, 4507, 4511].includes(error.closeCode)) return true;
    this.#isRemembered = false;
    this.#mine = undefined;
    this.#claim.drop();
    this.#memory.set(this.#key);
    return false;
  }

  #over() {
    const { error } = this.#link;
    clearTimeout(this.#progressTimer);
    this.#claim.drop();
    if (error && !['kicked', 'unauthorized'].includes(error.code)) this.#memory.set(this.#key);
    const cause = error ?? new GatewayError('closed', 'It was closed.');
    for (const { reject } of this.#writes.values()) reject(cause);
    this.#writes.clear();
    this.#closing?.shared.cancel();
    this.#closing = undefined;
  }

  #hear(message) {
    if (message.position !== undefined) this.#position = String(message.position);
    switch (message.type) {
      case 'hello':
        this.#greeted(message);
        break;
      case 'ack':
      case 'error':
        this.#answered(message);
        break;
      case 'closing':
        this.#warned(message);
        break;
      case 'close_extended':
        if (this.#closing) this.#warned({ ...this.#closing.told, ...message });
        break;
      case 'close_cancelled':
        this.#calledOff();
        break;
      case 'stop_stream':
        this.#said.streams.delete(message.key);
        this.#session = patched(this.#session, { streams: streamsWithout(this.#session, message.key) });
        this.dispatchEvent(new CustomEvent('stop-stream', { detail: { key: message.key } }));
        break;
      case 'message':
        this.dispatchEvent(new TopicEvent('message', { topic: message.topic, body: message.body }));
        break;
    }
  }

  #greeted({ session, session_token }) {
    const id = String(session.id);
    const isAnother = this.#session && session_token !== undefined;
    if (session_token !== undefined) {
      this.#mine = { id, token: String(session_token) };
      if (this.#memory.isKept) this.#claim.take(id, true);
      this.#memory.set(this.#key, this.#mine);
    }
    this.#isRemembered = false;
    this.#session = frozen(session);
    if (this.#closing && !session.closing) this.#calledOff();
    this.#link.live();
    if (isAnother) this.#repeat();
    this.#flush();
    this.#report();
  }

  /** Says again to a new session what the old one was told last, before what was not answered yet. */
  #repeat() {
    const { changes, watch, streams } = this.#said;
    if (Object.keys(changes).length) this.#link.send({ type: 'update', changes });
    for (const message of [watch, ...streams.values()]) if (message) this.#link.send(message);
  }

  #write(message) {
    if (this.#link.isFinal) return Promise.reject(this.#link.error ?? new GatewayError('closed', 'It was closed.'));
    if (this.#writes.size >= WRITES_MAX) return Promise.reject(new GatewayError('overloaded', `${WRITES_MAX} messages await an answer.`));
    const ref = `${this.#prefix}-${(this.#refs += 1)}`;
    const { promise, resolve, reject } = deferred();
    this.#writes.set(ref, { message, text: JSON.stringify({ ...message, ref }), resolve, reject });
    this.#flush();
    return promise;
  }

  /** Sends what was not sent on this connection, as far as the session remembers so many refs. */
  #flush() {
    const { socket } = this.#link;
    if (!socket) return;
    let sent = 0;
    for (const write of this.#writes.values()) {
      if ((sent += 1) > WRITES_SENT_MAX) return;
      if (write.socket !== socket && this.#link.send(write.text)) write.socket = socket;
    }
  }

  #answered({ type, ref, revision, code, message: text }) {
    const write = this.#writes.get(ref);
    if (!write) return;
    this.#writes.delete(ref);
    if (type === 'error') {
      write.reject(new GatewayError(String(code), String(text ?? '')));
    } else {
      const { message } = write;
      if (message.type === 'leave' || message.type === 'saved') this.#hasLeft = true;
      this.#record(message);
      const known = this.#session.revision;
      this.#session = patched(this.#session, { ...changesOf(message, this.#session), revision: Math.max(known, revision ?? 0) });
      write.resolve(message.type === 'need_more' ? this.#closing?.at : revision ?? known);
    }
    this.#flush();
  }

  #record({ type, ...message }) {
    const said = this.#said;
    if (type === 'watch') said.watch = { type, ...message };
    if (type === 'unwatch') said.watch = undefined;
    if (type === 'update') said.changes = stacked(said.changes, message.changes);
    if (type !== 'stream') return;
    if (message.state === 'stopped') said.streams.delete(message.key);
    else said.streams.set(message.key, { type, ...message });
  }

  /** Reports the newest position, at most once a second. */
  #report() {
    const wait = this.#progressRan + PROGRESS_MS - ran();
    clearTimeout(this.#progressTimer);
    if (!this.#progress || !this.#link.socket) return;
    if (wait > 0) {
      this.#progressTimer = later(() => this.#report(), wait);
    } else if (this.#link.send(this.#progress)) {
      this.#progressRan = ran();
      this.#progress = undefined;
    }
  }

  /** The session will be closed, or later or sooner than told; the gateway also reminds of it. */
  #warned(told) {
    const known = this.#closing;
    const closesAt = String(told.closes_at);
    const shared = known?.shared ?? new Closing((message) => this.#write(message));
    shared.endsRan = ran() + Number(told.in_ms);
    if (known?.closesAt === closesAt) return;
    const at = new Date(Date.now() + Number(told.in_ms)); // by this machine's clock, which may be wrong
    const closing = { at, closesAt, reason: told.reason, extendMaxMs: told.extend_max_ms, shared, told };
    this.#closing = closing;
    const { reason, extend_max_ms } = told;
    this.#session = patched(this.#session, { state: 'closing', closes_at: closesAt, closing: { at: closesAt, reason: reason ?? null, extend_max_ms } });
    const needMore = (ms) => this.#write({ type: 'need_more', ms });
    this.dispatchEvent(new ClosingEvent(known ? 'close-moved' : 'closing', { ...closing, closing: shared, needMore }));
  }

  #calledOff() {
    if (!this.#closing) return;
    this.#closing.shared.cancel();
    this.#closing = undefined;
    this.#session = patched(this.#session, { state: 'connected', closes_at: null, closing: null });
    this.dispatchEvent(new Event('close-cancelled'));
  }
}

/** One merge patch with the effect of two; unlike a merge it keeps the nulls. */
function stacked(earlier, later) {
  if (!isObject(earlier) || !isObject(later)) return later;
  const result = new Map(Object.entries(earlier));
  for (const [key, value] of Object.entries(later)) result.set(key, stacked(result.get(key), value));
  return Object.fromEntries(result);
}

const streamsWithout = (session, key) => {
  const streams = (session.streams ?? []).filter((stream) => stream.key !== key);
  return streams.length ? streams : null;
};

/** What a message that the gateway accepted changes in the session, but for times. */
function changesOf({ type, ...message }, session) {
  switch (type) {
    case 'watch':
      return { is_watching: true, watch: { ...Object.fromEntries(Object.keys(session.watch ?? {}).map((key) => [key, null])), ...message } };
    case 'unwatch':
      return { is_watching: false, watch: null };
    case 'update':
      return message.changes;
    case 'stream': {
      const others = streamsWithout(session, message.key);
      return { streams: message.state === 'stopped' ? others : [...(others ?? []), { data: {}, ...JSON.parse(JSON.stringify(message)) }] };
    }
    default:
      return {};
  }
}

export function connect(options = {}) {
  return new Me(options);
}
