// The parked Node: a warm interpreter that becomes one program, because Node cannot fork.
//
// Descriptor 3 is a socket to the guest-runner. An order is as in python.py, but without descriptors:
// the standard streams are the program's already.
'use strict';
// The rehearsal below loads this file again.
if (require.main !== module) return;
const fs = require('node:fs');
const path = require('node:path');
const crypto = require('node:crypto');
const Module = require('node:module');
const util = require('node:util');
const v8 = require('node:v8');
const vm = require('node:vm');
const { Console } = require('node:console');
const { Writable } = require('node:stream');
// What a standard stream is, if it is a pipe.
require('node:net');

const CONTROL = 3;

function read(length) {
  const bytes = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const count = fs.readSync(CONTROL, bytes, filled, length - filled);
    if (count === 0) process.reallyExit(0);
    filled += count;
  }
  return bytes;
}

// V8 seeded Math.random before the snapshot, so it would be the same in all clones. This is
// xoshiro128+ with a seed of the clone's own. Source: Blackman and Vigna, "Scrambled linear
// pseudorandom number generators", 2021, section 5.
function reseed() {
  const s = new Uint32Array(4);
  crypto.getRandomValues(s);
  const next = () => {
    const result = (s[0] + s[3]) >>> 0;
    const t = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result;
  };
  // 53 bits: all that a number holds.
  const random = () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
  Object.defineProperty(Math, 'random', { value: random, writable: true, enumerable: false, configurable: true });
}

// Does once what every program makes Node load and compile: the way to a program's file, a line on a console.
function rehearse() {
  delete require.cache[__filename];
  Module._load(__filename, null, false);
  delete require.cache[__filename];
  const stdout = new Writable({ write(_line, _encoding, done) { done(); } });
  new Console({ stdout, stderr: stdout }).log(6 * 7);
}

// The young garbage goes now, so that a short program needs no collection. A whole one would throw away compiled code too.
function collect() {
  v8.setFlagsFromString('--expose-gc');
  vm.runInNewContext('gc')({ type: 'minor' });
  v8.setFlagsFromString('--no-expose-gc');
}

// Node frees all that it has when nothing is left to do, which the kernel does anyway. Where it has told of that itself,
// with no frame of JavaScript around, it ends as process.exit() does; with one around, more is to come: an uncaught
// error has yet to be printed. So has code 13, of an await that never ends.
function endSoon() {
  const events = Object.getPrototypeOf(process);
  const { emit } = events;
  const value = function (name, ...values) {
    const result = Reflect.apply(emit, this, [name, ...values]);
    if (name === 'exit' && this === process && values[0] !== 13 && util.getCallSites?.(2).length === 1) {
      process.reallyExit(process.exitCode ?? values[0]);
    }
    return result;
  };
  Object.defineProperty(events, 'emit', { value, writable: true, enumerable: false, configurable: true });
}

function become() {
  const fields = read(read(4).readUInt32BE(0)).toString('utf8').split('\0').slice(0, -1);
  const [file, count] = [fields[0], Number(fields[1])];
  const [folder, ...args] = fields.slice(2, 2 + count);
  fs.closeSync(CONTROL);
  process.chdir(folder);
  for (const word of fields.slice(2 + count)) {
    const at = word.indexOf('=');
    if (at < 0) delete process.env[word];
    else process.env[word.slice(0, at)] = word.slice(at + 1);
  }
  reseed();
  process.argv = [process.execPath, path.join(folder, file), ...args];
  // From the event loop, so that nothing of this file is below the program's frames.
  setImmediate(() => Module.runMain());
}

for (const snippet of process.argv.slice(2)) new Function('require', 'console', snippet)(require, { log() {} });
rehearse();
endSoon();
collect();
fs.writeSync(CONTROL, 'ready\n');
become();
