// Socket.IO with Redis, as its documents recommend for new projects (sharded adapter), and tuned as
// its page on performance says: WebSocket only, bufferutil, the first request is let go.
//
// A client that comes with auth {session: <id>} is a session: its record is kept in Redis and every watcher
// hears it come and leave. (Less than the gateway keeps: no log, no history, no tombstone.)
const { createServer } = require("http");
const { createClient } = require("redis");
const { Server } = require("socket.io");
const { createShardedAdapter } = require("@socket.io/redis-adapter");

async function main() {
  const client = createClient({ socket: { path: process.env.REDIS_PATH } });
  const subscriber = client.duplicate();
  await Promise.all([client.connect(), subscriber.connect()]);
  const http = createServer();
  const io = new Server(http, {
    adapter: createShardedAdapter(client, subscriber),
    transports: ["websocket"],
    serveClient: false,
  });
  io.engine.on("connection", (raw) => { raw.request = null; });

  let number = 0;
  const tell = (event) => io.to("c000").emit("events", {
    type: "events", position: `${Date.now()}-${number}`, events: [event],
  });

  io.on("connection", async (socket) => {
    socket.on("join", (room) => { socket.join(room); socket.emit("joined"); });
    socket.on("publish", (room, events) => { io.to(room).emit("events", events); });
    const id = socket.handshake.auth.session;
    if (!id) return;
    const at = new Date().toISOString();
    const session = {
      id, number: ++number, revision: 1, state: "connected", is_connected: true, is_watching: false,
      workspace: "c000", created_at: at, connected_at: at, linger_ms: 15000,
      connection: { id: socket.id, address: socket.handshake.address, connected_at: at },
    };
    let opened = false;
    let left = false;
    socket.on("disconnect", leave);
    async function leave() {
      left = true;
      if (!opened) return;
      opened = false;
      await client.hDel("live", id);
      const at = new Date().toISOString();
      tell({
        type: "session.closed", session_id: id, revision: 2, at,
        changes: {
          state: "closed", is_connected: false, disconnected_at: at, closed_at: at,
          connection: { ended_at: at }, closed: { at, reason: "left", code: 4500, outcome: "left" },
        },
      });
    }
    await client.hSet("live", id, JSON.stringify(session));
    opened = true;
    tell({ type: "session.opened", session_id: id, revision: 1, at, session });
    if (left) return leave();
    socket.emit("hello", session);
  });
  http.listen({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096 });
}

main();
