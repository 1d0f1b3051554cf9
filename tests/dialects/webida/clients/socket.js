// A client of Socket.IO as Webida's IDE uses one: WebSocket only, coming back by itself.
//
//   node socket.js MODULES LIBRARY URL PATH QUERY   writes one JSON line for whatever it hears:
//                                                   [EVENT, ARGUMENT, ...]
//
// A line on standard input is a command: `drop` loses the network, `leave` disconnects.
"use strict";

const readline = require("node:readline");

const [, , modules, library, url, path, query] = process.argv;
const io = require(`${modules}/${library}`);

const socket = io(url, {
  path,
  query,
  transports: ["websocket"],
  timeout: 5000,
  reconnectionAttempts: 20,
  reconnectionDelay: 50,
  reconnectionDelayMax: 300,
  forceNew: true,
  forceNode: true,
});

function say(...heard) {
  process.stdout.write(`${JSON.stringify(heard)}\n`);
}

socket.on("connect", () => say("connect", socket.id));
for (const name of [
  "disconnect", "reconnect", "reconnect_failed", "announcement", "closing",
  "session.announcement", "session.closing",
]) {
  socket.on(name, (...args) => say(name, ...args));
}
socket.on("error", (error) => say("error", error instanceof Error ? error.message : error));

const commands = {
  drop: () => socket.io.engine.transport.ws._socket.destroy(),
  leave: () => socket.disconnect(),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => commands[line]());
