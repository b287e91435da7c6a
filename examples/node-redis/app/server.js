// Counts visits in Redis and says which server answered.
'use strict';
const http = require('http');
const net = require('net');
const os = require('os');

const STORE = { host: process.env.STORE || 'store', port: 6379 };
const LIMIT = 3000;  // milliseconds that the store may take

// One connection to Redis, kept: answers come in the order of the commands. Made anew when it was lost.
let store = null;
let waiting = [];

function connected() {
  if (store) return store;
  const socket = net.connect(STORE);
  let text = '';
  store = socket;
  socket.setTimeout(LIMIT, () => waiting.length && socket.destroy(new Error('the store does not answer')));
  socket.on('data', (piece) => {
    text += piece;
    for (let end; (end = text.indexOf('\r\n')) >= 0; text = text.slice(end + 2)) {
      const line = text.slice(0, end);
      const { resolve, reject } = waiting.shift();
      if (line[0] === ':') resolve(Number(line.slice(1)));
      else reject(new Error(line));
    }
  });
  socket.on('error', (error) => lost(socket, error));
  socket.on('close', () => lost(socket, new Error('the store went away')));
  return socket;
}

function lost(socket, error) {
  if (store !== socket) return;
  store = null;
  const failed = waiting;
  waiting = [];
  for (const { reject } of failed) reject(error);
}

// One command of Redis' protocol (RESP): an array of bulk strings; the answer of INCR is ":<number>\r\n".
function increment(key) {
  return new Promise((resolve, reject) => {
    const socket = connected();
    waiting.push({ resolve, reject });
    socket.write(`*2\r\n$4\r\nINCR\r\n$${key.length}\r\n${key}\r\n`);
  });
}

const server = http.createServer(async (request, response) => {
  if (!server.listening) response.setHeader('Connection', 'close');
  try {
    const visits = request.url === '/health' ? 0 : await increment('visits');
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ server: os.hostname(), visits }) + '\n');
  } catch (error) {
    response.writeHead(503, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ server: os.hostname(), error: error.message }) + '\n');
  }
});
server.listen(3000);

// What is under way is answered, then it ends.
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
