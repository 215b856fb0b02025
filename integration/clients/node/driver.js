// kafkajs behind the drivers' protocol, which ../driver.go describes.
// usage: node driver.js BOOTSTRAP NODE_MODULES
'use strict'

const path = require('path')
const readline = require('readline')

const [, , bootstrap, modules] = process.argv
const load = name => require(path.join(modules, name))

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = load('kafkajs')
const zstd = load('@bokuweb/zstd-wasm')

// kafkajs brings gzip; the other codecs are plug-ins by its documented interface.
CompressionCodecs[CompressionTypes.Snappy] = load('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = new (load('@2l/kafkajs-lz4'))().codec
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

const limit = 60_000
const kafka = new Kafka({
  clientId: 'firn-test-node',
  brokers: bootstrap.split(','),
  logLevel: logLevel.ERROR,
  logCreator: () => entry => process.stderr.write(JSON.stringify(entry.log) + '\n'), // stdout carries answers
})

const decode = s => (s === '-' ? null : Buffer.from(s, 'base64'))
const encode = b => (b === null || b === undefined ? null : Buffer.from(b).toString('base64'))

async function version() {
  return { version: 'kafkajs ' + load('kafkajs/package.json').version }
}

async function produce(next, topic, codec, n) {
  const messages = []
  for (let i = 0; i < Number(n); i++) {
    const [partition, timestamp, key, value, headers] = (await next()).split('\t')
    const m = { partition: Number(partition), timestamp, key: decode(key), value: decode(value), headers: {} }
    for (const h of headers ? headers.split(',') : []) {
      const at = h.indexOf(':')
      m.headers[h.slice(0, at)] = decode(h.slice(at + 1))
    }
    messages.push(m)
  }
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  const acks = []
  try {
    // kafkajs makes one batch a partition of whatever one send gets, however large.
    for (let from = 0; from < messages.length; ) {
      let to = from
      for (let bytes = 0; to < messages.length && (to === from || bytes + size(messages[to]) < 300_000); to++) bytes += size(messages[to])
      const base = {}
      for (const a of await producer.send({ topic, acks: -1, compression: codecs[codec], messages: messages.slice(from, to) })) {
        base[a.partition] = Number(a.baseOffset)
      }
      for (const m of messages.slice(from, to)) acks.push([m.partition, base[m.partition]++])
      from = to
    }
  } finally {
    await producer.disconnect()
  }
  return { acks }
}

const size = m => 100 + (m.key ? m.key.length : 0) + (m.value ? m.value.length : 0)

// read runs a consumer until n records have come, calls done with them while it
// is still a member of its group, and leaves.
async function read(group, topic, n, started, done) {
  const consumer = kafka.consumer({ groupId: group, sessionTimeout: 10_000, heartbeatInterval: 1_000, maxWaitTimeInMs: 500 })
  const got = []
  let timer
  await consumer.connect()
  try {
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    const enough = new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`only ${got.length} of ${n} records came in time`)), limit)
      consumer.on(consumer.events.CRASH, e => reject(e.payload.error))
      consumer
        .run({
          autoCommit: false,
          eachMessage: async ({ partition, message }) => {
            if (got.length < n) got.push({ partition, message })
            if (got.length === n) resolve()
          },
        })
        .then(() => started(consumer))
        .catch(reject)
    })
    await enough
    await done(consumer, got)
  } finally {
    clearTimeout(timer)
    await consumer.disconnect()
  }
  return got.map(({ partition, message: m }) => ({
    partition,
    offset: Number(m.offset),
    timestamp: Number(m.timestamp),
    key: encode(m.key),
    value: encode(m.value),
    headers: Object.entries(m.headers || {}).map(([key, value]) => ({ key, value: encode(value) })),
  }))
}

const nothing = async () => {}
const fresh = () => 'firn-test-node-' + process.pid + '-' + process.hrtime.bigint()

async function consume(next, topic, n) {
  return { records: await read(fresh(), topic, Number(n), nothing, nothing) }
}

async function group(next, topic, name, n) {
  const commit = async (consumer, got) => {
    const last = {}
    for (const { partition, message } of got) last[partition] = Number(message.offset)
    await consumer.commitOffsets(Object.entries(last).map(([p, o]) => ({ topic, partition: Number(p), offset: String(o + 1) })))
  }
  return { records: await read(name, topic, Number(n), nothing, commit) }
}

async function seek(next, topic, timestamp, n) {
  const admin = kafka.admin()
  await admin.connect()
  let found
  try {
    found = await admin.fetchTopicOffsetsByTimestamp(topic, Number(timestamp))
  } finally {
    await admin.disconnect()
  }
  // run() returns before the first fetch, so the seek precedes every record.
  const from = Object.fromEntries(found.map(f => [f.partition, Number(f.offset)]))
  const started = async consumer => found.forEach(f => consumer.seek({ topic, partition: f.partition, offset: f.offset }))
  const records = await read(fresh(), topic, Number(n), started, nothing)
  return { offsets: from, records }
}

async function main() {
  await zstd.init()
  const lines = readline.createInterface({ input: process.stdin, crlfDelay: Infinity })[Symbol.asyncIterator]()
  const next = async () => (await lines.next()).value
  const commands = { version, produce, consume, group, seek }
  for (let line; (line = await next()) !== undefined; ) {
    const [name, ...args] = line.split('\t')
    let answer
    try {
      answer = await commands[name](next, ...args)
    } catch (e) {
      answer = { error: String((e && e.stack) || e) }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
}

main().then(() => process.exit(0))
