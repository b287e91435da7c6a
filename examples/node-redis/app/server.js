// Counts visits in Redis and says which server answered.
'use strict';
const http = require('http');
const net = require('net');
const os = require('os');

const STORE = { host: process.env.STORE || 'store', port: 6379 };

// One command of Redis' protocol (RESP): an array of bulk strings; the answer of INCR is ":<number>\r\n".
function increment(key) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(STORE, () => socket.write(`*2\r\n$4\r\nINCR\r\n$${key.length}\r\n${key}\r\n`));
    socket.setTimeout(3000, () => socket.destroy(new Error('the store does not answer')));
    let text = '';
    socket.on('error', reject);
    socket.on('data', (piece) => {
      text += piece;
      if (!text.endsWith('\r\n')) return;
      socket.end();
      if (text.startsWith(':')) resolve(Number(text.slice(1)));
      else reject(new Error(text.trim()));
    });
  });
}

const server = http.createServer(async (request, response) => {
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
process.on('SIGTERM', () => process.exit(0));
