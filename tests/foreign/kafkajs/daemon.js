// KafkaJS behind one JSON request a line: see clients/daemon.py for the other end.
'use strict'

const readline = require('readline')
const {
  Kafka, logLevel, CompressionTypes, CompressionCodecs, ConfigResourceTypes,
} = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const { ZstdCodec } = require('zstd-codec')

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})

const zstdReady = new Promise(resolve => ZstdCodec.run(zstd => resolve(new zstd.Streaming())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from((await zstdReady).compress(encoder.buffer)),
  decompress: async buffer => Buffer.from((await zstdReady).decompress(buffer)),
})

const CODECS = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}

const kafka = new Kafka({
  clientId: 'tidelog-kafkajs',
  brokers: [process.argv[2]],
  logLevel: logLevel.NOTHING,
  // Less than its own default, so that a test which must fail does so soon.
  retry: { retries: Number(process.argv[3] || 3), initialRetryTime: 100 },
})

const handles = new Map()
let nextHandle = 1
let adminClient

const keep = thing => { handles.set(nextHandle, thing); return nextHandle++ }
const bytes = text => (text === null ? null : Buffer.from(text, 'base64'))
const base64 = data => (data === null || data === undefined ? null : Buffer.from(data).toString('base64'))
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

async function admin () {
  if (!adminClient) {
    adminClient = kafka.admin()
    await adminClient.connect()
  }
  return adminClient
}

// KafkaJS keeps the values of a repeated header name together, so their order across names is by name.
function headersIn (pairs) {
  const headers = {}
  for (const [name, value] of pairs) {
    if (name in headers) headers[name] = [].concat(headers[name], [bytes(value)])
    else headers[name] = bytes(value)
  }
  return headers
}

function headersOut (headers) {
  return Object.entries(headers || {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map(v => [name, base64(v)]))
}

// ---- records

async function produce ({ topic, records, codec, acks, idempotent }) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : 5, allowAutoTopicCreation: true })
  await producer.connect()
  try {
    const messages = records.map(r => ({
      key: bytes(r.key), value: bytes(r.value), headers: headersIn(r.headers), partition: r.partition,
      ...(r.timestamp === null ? {} : { timestamp: String(r.timestamp) }),
    }))
    const answers = await producer.send({ topic, messages, acks, compression: CODECS[codec], timeout: 8000 })
    if (acks === 0) return []
    // One answer for each partition: the offset of the first record there.
    const next = new Map(answers.map(a => [a.partition, Number(a.baseOffset)]))
    return records.map(r => {
      const offset = next.get(r.partition)
      next.set(r.partition, offset + 1)
      return [r.partition, offset]
    })
  } finally {
    await producer.disconnect()
  }
}

// KafkaJS reads in groups only: a group of its own for each reader, moved to where the reader wants to start.
async function open ({ topic, partition, start, timestamp }) {
  const groupId = `reader-${process.pid}-${nextHandle}-${Math.random()}`
  const client = await admin()
  let offset = start
  const ends = await client.fetchTopicOffsets(topic)
  const end = ends.find(e => e.partition === partition)
  if (start === 'beginning') offset = end.low
  if (start === 'end') offset = end.high
  if (start === 'timestamp') {
    const found = await client.fetchTopicOffsetsByTimestamp(topic, timestamp)
    offset = found.find(f => f.partition === partition).offset
  }
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, maxBytesPerPartition: 4 << 20, sessionTimeout: 10000 })
  const reader = { consumer, groupId, records: [] }
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition: from, message }) => {
      if (from !== partition || Number(message.offset) < Number(offset)) return
      reader.records.push({
        value: base64(message.value), key: base64(message.key), headers: headersOut(message.headers),
        timestamp: Number(message.timestamp), partition: from, offset: Number(message.offset),
      })
    },
  })
  consumer.seek({ topic, partition, offset: String(offset) })
  return keep(reader)
}

async function poll ({ handle, count, timeout_ms: timeoutMs }) {
  const { records } = handles.get(handle)
  const deadline = Date.now() + timeoutMs
  while (records.length === 0 && Date.now() < deadline) await sleep(10)
  return records.splice(0, count)
}

async function close ({ handle }) {
  const thing = handles.get(handle)
  handles.delete(handle)
  await thing.consumer.disconnect()
  return null
}

// ---- groups

async function member ({ group, topic, metadata }) {
  const consumer = kafka.consumer({
    groupId: group, sessionTimeout: 10000, heartbeatInterval: 300, maxWaitTimeInMs: 100, rebalanceTimeout: 10000,
  })
  const state = { consumer, received: [], assignment: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { state.assignment = payload.memberAssignment[topic] || [] })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, heartbeat, isRunning, isStale }) => {
      if (!isRunning() || isStale() || batch.messages.length === 0) return
      for (const m of batch.messages) state.received.push([batch.partition, Number(m.offset), base64(m.value)])
      const offset = String(Number(batch.lastOffset()) + 1)
      await consumer.commitOffsets([{ topic, partition: batch.partition, offset, metadata }])
      await heartbeat()
    },
  })
  return keep(state)
}

async function memberStop ({ handle }) {
  await handles.get(handle).consumer.disconnect()
  return null
}

function memberState ({ handle, since }) {
  const { received, assignment } = handles.get(handle)
  return { received: received.slice(since), assignment }
}

async function committed ({ group, topic, partition }) {
  const [found] = await (await admin()).fetchOffsets({ groupId: group, topics: [topic] })
  const one = found.partitions.find(p => p.partition === partition)
  return one ? [Number(one.offset), one.metadata] : [-1, '']
}

async function commit ({ group, topic, partition, offset }) {
  await (await admin()).setOffsets({ groupId: group, topic, partitions: [{ partition, offset: String(offset) }] })
  return null
}

// ---- administration

async function createTopic ({ name, partitions, replication, configs }) {
  const configEntries = Object.entries(configs).map(([key, value]) => ({ name: key, value }))
  const done = await (await admin()).createTopics({
    waitForLeaders: false,
    topics: [{ topic: name, numPartitions: partitions, replicationFactor: replication, configEntries }],
  })
  // KafkaJS answers false where the topic exists.
  if (!done) throw Object.assign(new Error('topic exists'), { code: 36 })
  return null
}

async function topicConfig ({ name }) {
  const { resources } = await (await admin()).describeConfigs({
    includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name }],
  })
  return Object.fromEntries(resources[0].configEntries.map(e => [e.configName, e.configValue]))
}

const ops = {
  produce,
  open,
  poll,
  close,
  member,
  member_state: memberState,
  member_stop: memberStop,
  committed,
  commit,
  create_topic: createTopic,
  delete_topic: async ({ name }) => (await admin()).deleteTopics({ topics: [name] }),
  create_partitions: async ({ name, count }) =>
    (await admin()).createPartitions({ topicPartitions: [{ topic: name, count }] }),
  list_topics: async () => (await admin()).listTopics(),
  topic_config: topicConfig,
  set_config: async ({ name, key, value }) => (await admin()).alterConfigs({
    validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name, configEntries: [{ name: key, value }] }],
  }),
  delete_records: async ({ topic, partition, before }) => {
    // deleteTopicRecords looks for leaders among the topics that it has asked about before.
    await (await admin()).fetchTopicOffsets(topic)
    return (await admin()).deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] })
  },
  list_groups: async () => (await (await admin()).listGroups()).groups.map(g => g.groupId),
  describe_group: async ({ group }) => {
    const { groups } = await (await admin()).describeGroups([group])
    return [groups[0].state, groups[0].members.length]
  },
  delete_group: async ({ group }) => (await admin()).deleteGroups([group]),
}

// KafkaJS wraps the broker's answer: in `cause` after retries, in `errors`, `groups` or `partitions` for several at once.
function codeOf (error) {
  if (!error || typeof error !== 'object') return null
  for (const code of [error.code, error.errorCode]) if (Number.isInteger(code)) return code
  const inner = [error.cause, error.error, ...(error.errors || []), ...(error.groups || []), ...(error.partitions || [])]
  return inner.map(codeOf).find(code => code !== null) ?? null
}

readline.createInterface({ input: process.stdin }).on('line', async line => {
  const request = JSON.parse(line)
  let answer
  try {
    const ok = await ops[request.op](request)
    answer = { id: request.id, ok: ok === undefined ? null : ok }
  } catch (error) {
    answer = { id: request.id, error: { code: codeOf(error), message: `${error.name}: ${error.message}` } }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}).on('close', () => process.exit(0))
