-- A worker says that it lives: its lease runs on, for itself and for each queue it consumes. Answers the jobs it
-- must stop and the closed gates of its queues: {ids, {queue, reason, ms left (0 = look again)…}}. A half-open circuit
-- without a probe under way is named `half_open`: consume, to find a probe. ARGV: now, worker, lease (ms), description, queues…
local now, worker = clock(ARGV[1]), ARGV[2]
local ends = now + tonumber(ARGV[3])
redis.call('ZADD', 'dj:workers', ends, worker)
redis.call('SET', 'dj:worker:' .. worker, ARGV[4], 'PX', 86400000)
for i = 5, #ARGV do
  redis.call('ZADD', queue_key(ARGV[i]) .. ':workers', ends, worker)
  redis.call('ZREMRANGEBYSCORE', queue_key(ARGV[i]) .. ':workers', '-inf', '(' .. ms(now)) -- those who left no notice
end
local closed = {}
for i = 5, #ARGV do
  local reason, ends = gate_of(ARGV[i], now)
  if reason == 'circuit_open' and ends <= now then
    local left = redis.call('PTTL', 'dj:circuit:' .. ARGV[i]:sub(6) .. ':probe')
    if left > 0 then ends = now + left else reason, ends = 'half_open', 0 end
  end
  if reason then
    closed[#closed + 1] = ARGV[i]
    closed[#closed + 1] = reason
    closed[#closed + 1] = ends == 0 and 0 or math.max(1, ends - now)
  end
end
return {redis.call('SMEMBERS', cancel_key(worker)), closed}
