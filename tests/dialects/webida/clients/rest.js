// The published client of Webida's API (npm webida-restful-api 0.8.1), driven step by step.
//
//   node rest.js MODULES BASE   reads one JSON step a line: {"do": NAME, "args": [...]}
//                               writes one JSON line for each: {"data": ...} or {"status", "error"}
//
// Steps are methods of its AuthApi and SessionApi, called as its documents show. `token` sets the
// API key. Generation A had the same transport and other paths: `findA`, `getA` and `closeA` make
// the calls that the documents of that time show, through the client's own callApi.
"use strict";

const readline = require("node:readline");

const [, , modules, base] = process.argv;
const webida = require(`${modules}/webida-restful-api`);
const client = webida.ApiClient.instance;
client.basePath = base;

const auth = new webida.AuthApi();
const session = new webida.SessionApi();
const AUTH = ["webida-simple-auth"];
const JSON_TYPES = ["application/json"];
const ACCEPTED = ["application/json", "application/octet-stream"];

function generationA(method, path, pathParams, query, type, callback) {
  client.callApi(
    path, method, pathParams, query, {}, {}, null, AUTH, JSON_TYPES, ACCEPTED, type, callback,
  );
}

const steps = {
  token: (text, callback) => {
    client.authentications["webida-simple-auth"].apiKey = text;
    callback(null, null);
  },
  login: (id, password, callback) => {
    auth.login({ loginId: id, loginPassword: password }, callback);
  },
  loginByMaster: (text, callback) => {
    auth.login({ loginId: "x", loginPassword: "y", masterToken: text }, callback);
  },
  info: (callback) => auth.getInfo(callback),
  issue: (type, opts, callback) => auth.issueToken(type, opts, callback),
  find: (id, workspace, callback) => session.findSessions(id, workspace, callback),
  close: (id, workspace, after, callback) => session.closeSessions(id, workspace, after, callback),
  findA: (opts, callback) => generationA("GET", "/sessions", {}, opts, Object, callback),
  getA: (id, callback) => {
    generationA("GET", "/sessions/{sessionId}", { sessionId: id }, {}, Object, callback);
  },
  closeA: (id, after, callback) => {
    const path = "/sessions/{sessionId}";
    generationA("DELETE", path, { sessionId: id }, { closeAfter: after }, webida.RestOK, callback);
  },
};

function say(result) {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const step = JSON.parse(line);
  steps[step.do](...step.args, (error, data, response) => {
    if (error) say({ status: error.status, error: response && response.body });
    else say({ data });
  });
});
