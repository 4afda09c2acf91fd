-- What queues ask for, and who works: {queues, workers}. Looks at each queue, worker and paused batch, at no job.
-- A queue: {queued, waiting, taken, running, ms the oldest has waited, mean run time (ms), of how many jobs, most at
-- once or 0, gate or false, gate's end, 1 if half-open, 1 if a probe is under way, waiting ones of paused batches}.
-- A worker: {id, ms its lease still runs, 0 or less if it is over, jobs it holds, its description or false}.
-- ARGV: now, queues…
local now, queues, workers = clock(ARGV[1]), {}, {}
local paused, counts = {}, {}
for i = 2, #ARGV do counts[i] = 'waiting ' .. ARGV[i] end
for _, batch in ipairs(#ARGV > 1 and redis.call('SMEMBERS', 'dj:paused_batches') or {}) do
  local waiting = redis.call('HMGET', batch_key(batch), unpack(counts, 2, #ARGV))
  for i = 2, #ARGV do paused[i] = (paused[i] or 0) + math.max(0, tonumber(waiting[i - 1] or '0')) end
end
for i = 2, #ARGV do
  local queue = ARGV[i]
  local n = redis.call('HMGET', queue_key(queue), 'queued', 'taken', 'running', 'service_ms', 'service_n', 'most')
  local waiting, oldest = 0, now
  for _, step in ipairs({'0', '3', '6'}) do
    local key = waiting_key(queue, step)
    waiting = waiting + redis.call('ZCARD', key)
    oldest = math.min(oldest, tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or now))
  end
  local gate, ends = gate_of(queue, now)
  local half_open = gate == 'circuit_open' and ends <= now
  local probed = half_open and redis.call('EXISTS', 'dj:circuit:' .. queue:sub(6) .. ':probe') or 0
  queues[#queues + 1] = {tonumber(n[1] or 0), waiting, tonumber(n[2] or 0), tonumber(n[3] or 0), now - oldest,
    n[4] or '0', tonumber(n[5] or 0), tonumber(n[6] or 0), gate or false, ends, half_open and 1 or 0, probed,
    paused[i] or 0}
end
local leases = redis.call('ZRANGE', 'dj:workers', 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  workers[#workers + 1] = {leases[i], tonumber(leases[i + 1]) - now, redis.call('SCARD', held_key(leases[i])),
    redis.call('GET', 'dj:worker:' .. leases[i])}
end
return {queues, workers}
