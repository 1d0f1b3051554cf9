// ws: rooms in a Map, one send per member. bufferutil is installed, compression is off (its default).
const { WebSocketServer } = require("ws");

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096 });

server.on("connection", (socket) => {
  let room = null;
  socket.on("message", (data) => {
    const kind = data[0];
    const name = data.toString("latin1", 1, 5);
    if (kind === 0x6a) {  // j: join
      room = name;
      if (!rooms.has(room)) rooms.set(room, new Set());
      rooms.get(room).add(socket);
      socket.send("joined");
    } else {  // p: publish; the rest is the event
      const event = data.subarray(5);
      for (const member of rooms.get(name) ?? []) member.send(event, { binary: false });
    }
  });
  socket.on("close", () => rooms.get(room)?.delete(socket));
  socket.on("error", () => {});
});
