/** Session Gateway's client for pages, workers and Node: `events()` follows sessions, `connect()` is one. */

/** `stale`: what you hold may be old, and the client is coming back. `refused` and `closed` are final. */
export type State = 'connecting' | 'live' | 'stale' | 'refused' | 'closed';

export interface Options {
  /** Where the gateway is; without it, where this module came from. */
  url?: string | URL;
  /**
   * A token, or a function that returns one: at first, before it expires or when it has (`expired`),
   * and once when the gateway refused it. Without a token none is sent: a page of the gateway's own
   * origin has its cookie.
   */
  token?: string | ((why: 'start' | 'expired' | 'refused', signal: AbortSignal) => string | Promise<string>);
  /** Its abort is `close()`. */
  signal?: AbortSignal;
  /** The class to use where there is no global one, as in Node 20. */
  WebSocket?: new (url: string, protocols: string[]) => object;
  /** A hint that tabs may use one socket; each has its own today. */
  share?: boolean | string;
}

export class GatewayError extends Error {
  /** For programs; most are those of the gateway's `/docs`, besides `unreachable`, `token_failed`, `bad_message` and `closed`. */
  readonly code: string;
  readonly closeCode?: number;
  readonly status?: number;
  readonly retryable: boolean;
}

export interface Watch {
  readonly key: string;
  readonly title?: string;
  readonly state?: string;
  readonly position_ms?: number;
  readonly duration_ms?: number;
}

export interface Session {
  readonly id: string;
  readonly revision: number;
  readonly state: 'idle' | 'connected' | 'away' | 'closing' | 'closed';
  readonly name?: string;
  readonly account?: string;
  readonly workspace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly watch?: Watch;
  readonly closes_at?: string;
  readonly [more: string]: unknown;
}

/** One session's difference: `enter` has `now`, `exit` has `before`, `update` has both. */
export interface Change {
  readonly type: 'enter' | 'update' | 'exit';
  readonly id: string;
  readonly now?: Session;
  readonly before?: Session;
  /** The final record, if it was closed. */
  readonly last?: Session;
  /** What happened, such as `session.watching`; empty if a snapshot told it. */
  readonly events: readonly string[];
}

/** An event as the gateway told it. */
export interface GatewayEvent {
  readonly type: string;
  readonly session_id: string;
  readonly revision?: number;
  readonly at?: string;
  readonly [more: string]: unknown;
}

/**
 * One batch is one position: `sessions` holds all of it when the listener runs. A snapshot is told as
 * its difference to what was held; `resync` says why there was one, unless it is the first.
 */
export class ChangesEvent extends Event {
  readonly changes: readonly Change[];
  readonly position: string;
  readonly resync?: string;
  /** The events of this batch, in order; empty for a snapshot. */
  readonly raw: readonly GatewayEvent[];
}

export class StateEvent extends Event {
  readonly state: State;
  readonly error?: GatewayError;
  readonly retryAt?: Date;
}

interface Live<E> extends AsyncDisposable {
  readonly state: State;
  readonly position?: string;
  /** Resolves when it is live for the first time; rejects if it ends before. */
  readonly ready: Promise<void>;
  /** Resolves when it has ended: with the reason, or with nothing after `close()` and `leave()`. */
  readonly finished: Promise<GatewayError | undefined>;
  /** Tries now, if it is waiting to. */
  retry(): void;
  /** Ends for good. A session is away then, until its linger time is over. */
  close(): Promise<void>;
  addEventListener<K extends keyof E>(type: K, listener: (event: E[K]) => void, options?: AddEventListenerOptions): void;
  removeEventListener<K extends keyof E>(type: K, listener: (event: E[K]) => void): void;
}

/**
 * Its iterator begins with what is held. If 256 batches wait for a slow loop they become one, their
 * net difference, with `resync` `slow`. It throws if the gateway refuses.
 */
export interface Feed extends Live<{ changes: ChangesEvent; state: StateEvent }>, AsyncIterable<ChangesEvent> {
  /**
   * The sessions in view, by id: never half a snapshot, never ahead of or behind `position`. Records are
   * frozen and keep their identity until they change. With `since`, only those that entered after it.
   */
  readonly sessions: ReadonlyMap<string, Session>;
  /**
   * Calls `changed` after changes of `sessions` or `state`, at most once a frame; returns how to stop
   * that. For React: `useSyncExternalStore(feed.subscribe, () => feed.position)`.
   */
  readonly subscribe: (changed: () => void) => () => void;
}

/** Follows the sessions that match a filter, in the words of `GET /v1/sessions`. */
export function events(filter?: Record<string, string | string[]>, options?: Options & { since?: string }): Feed;

/**
 * A pending close. The first `waitUntil(promise)` sends `saving`; when all are fulfilled, `saved`; a
 * rejection leaves the session to its deadline. `signal` aborts if it is called off, or closed.
 */
export class ClosingEvent extends Event {
  /** By this machine's clock. */
  readonly at: Date;
  readonly remainingMs: number;
  readonly reason?: string;
  readonly extendMaxMs: number;
  readonly signal: AbortSignal;
  waitUntil(work: Promise<unknown>): void;
  /** Asks for so long from now; resolves with the new time. */
  needMore(ms: number): Promise<Date>;
}

export class TopicEvent extends Event {
  readonly topic: string;
  readonly body: unknown;
}

/** Promises of writes resolve with the revision. After a reconnect they are repeated with the same `ref`, and done once. */
export interface Me extends Live<{
  state: StateEvent;
  closing: ClosingEvent;
  'close-moved': ClosingEvent;
  'close-cancelled': Event;
  'stop-stream': CustomEvent<{ key: string }>;
  message: TopicEvent;
}> {
  /** As the gateway greeted it, with all since folded in that it accepted. */
  readonly session: Session | undefined;
  readonly closing?: { readonly at: Date; readonly reason?: string };
  watch(key: string, more?: Omit<Watch, 'key'>): Promise<number>;
  /** Reported at most once a second; the newest counts. */
  progress(position_ms: number): void;
  unwatch(): Promise<number>;
  /** A merge patch: null removes. */
  update(changes: { name?: string; labels?: Record<string, string | null>; attributes?: Record<string, unknown> }): Promise<number>;
  /** The state `stopped` ends it. */
  stream(key: string, kind: string, state: string, data?: object): Promise<number>;
  /** Closes the session, now and for good. */
  leave(): Promise<void>;
}

/**
 * Is a session. `remember`: `tab` (the default) survives reloads, and a duplicated tab becomes a session
 * of its own; `origin` also survives the tab; `false` is a new session with every page.
 */
export function connect(options?: Options & {
  name?: string;
  workspace?: string;
  labels?: Record<string, string>;
  remember?: 'tab' | 'origin' | false;
}): Me;
